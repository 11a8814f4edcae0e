"""Figures of a run, drawn by matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captune.core.files import atomic_file


def draw_losses(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Training and validation loss (nats a token) over epochs, and CIDEr-D where it was measured.

    Of self-critical training the reward (CIDEr-D as well) instead of a training loss.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axis = figure.subplots()
    losses = (("loss", "training loss", "-", "tab:blue"), ("eval_loss", "validation loss", "o-", "tab:orange"))
    for key, label, style, color in losses:
        points = [(line["epoch"], line[key]) for line in history if line.get(key) is not None and "reward" not in line]
        if points:
            axis.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
    axis.set_xlabel("epoch")
    axis.set_ylabel("negative log-likelihood per token (nats)")
    axis.grid(alpha=0.3)
    scores = {
        label: [(line["epoch"], 100 * line[key]) for line in history if line.get(key) is not None]
        for key, label in (("eval_cider", "CIDEr-D (validation)"), ("reward", "reward (training)"))
    }
    handles, labels = axis.get_legend_handles_labels()
    if any(scores.values()):
        right = axis.twinx()
        for (label, points), style in zip(scores.items(), ("s--", "-"), strict=True):
            if points:
                color = "tab:green" if style == "s--" else "tab:purple"
                right.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=4)
        right.set_ylabel("CIDEr-D × 100")
        right.set_ylim(0, 1.1 * max(1.0, *(score for points in scores.values() for _, score in points)))
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")


def draw_search(trials: Sequence[tuple[Mapping[str, Any], float]], path: str | Path) -> None:
    """What each trial reached: over its number with the best so far, and over each option that was drawn."""
    from matplotlib.figure import Figure

    names = sorted({name for options, _ in trials for name in options})
    figure = Figure(figsize=(3.4 * (len(names) + 1), 3.4), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(names) + 1, squeeze=False, sharey=True)[0]
    values = [value for _, value in trials]
    axes[0].plot(range(len(values)), values, "o", markersize=4)
    axes[0].set_xlabel("finished trial")
    axes[0].set_ylabel("value")
    for axis, name in zip(axes[1:], names, strict=True):
        points = [(options[name], value) for options, value in trials if name in options]
        numbers = all(isinstance(x, float) for x, _ in points)
        axis.plot([x if numbers else str(x) for x, _ in points], [value for _, value in points], "o", markersize=4)
        if numbers and min(x for x, _ in points) > 0 and max(x for x, _ in points) > 20 * min(x for x, _ in points):
            axis.set_xscale("log")
        axis.set_xlabel(name)
    for axis in axes:
        axis.grid(alpha=0.3)
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")
