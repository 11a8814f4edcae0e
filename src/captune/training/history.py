"""The history of a training: `history.jsonl`, progress, sample captions, figures."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from captune.core.files import atomic_file, disk_error, write_text
from captune.core.progress import Progress
from captune.core.runs import HISTORY, Run
from captune.metrics import SPECS
from captune.training.trackers import CaptionSample

# Scores of a validation that are printed, by their names in the history.
SHOWN = {
    "eval_loss": "loss",
    **{f"eval_{name}": SPECS[name].label for name in ("vqa_accuracy", "cider", "bleu_4", "rouge_l")},
}


def append_history(run: Run, line: dict[str, Any]) -> None:
    """Add one line to `history.jsonl` and have it on the disk."""
    try:
        with open(run.path / HISTORY, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise disk_error(error, run.path / HISTORY) from error


def cut_history(run: Run, step: int) -> None:
    """Remove lines after `step`, so that a resumed run writes them anew."""
    lines = [line for line in run.history() if line.get("step", 0) <= step]
    write_text(run.path / HISTORY, "".join(json.dumps(line) + "\n" for line in lines))


def history_digest(run: Run) -> str:
    """A digest of all lines of the history."""
    return hashlib.sha256(json.dumps(run.history()).encode()).hexdigest()


class History(TrainerCallback):
    """Writes the history, moves the bar and shows sample captions after each validation."""

    def __init__(self, run: Run, progress: Progress, samples: Callable[[], Sequence[CaptionSample]]) -> None:
        self.run, self.progress, self.samples = run, progress, samples
        self._bar: Any = None
        self._task: Any = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar = self.progress.task("Training", state.max_steps)
        self._task = self._bar.__enter__()
        self._task.advance(state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._task.advance(1)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        values = {k: v for k, v in (logs or {}).items() if k != "epoch"}
        if "loss" not in values and not any(name.startswith("eval_") for name in values):
            return  # the library's own summary at the end
        append_history(self.run, {"step": state.global_step, "epoch": state.epoch, **values})
        if "loss" in values:
            self._task.note(f"epoch {state.epoch:.2f}  loss {values['loss']:.3f}")

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        scores = {name: value for name, value in (self.run.history() or [{}])[-1].items() if name in SHOWN}
        shown = "  ".join(f"{SHOWN[name]} {_formatted(name, value)}" for name, value in scores.items())
        self.progress.info(f"epoch {state.epoch:.2f}, step {state.global_step}, validation: {shown}")
        for sample in self.samples():
            first = sample.references[0] if sample.references else ""
            self.progress.info(f"  {sample.title}: {sample.caption!r}  reference: {first!r}")

        not_finite = [name.removeprefix("eval_") for name, value in scores.items() if value is None]
        if not_finite:
            self.progress.warn(
                f"No finite number at step {state.global_step}: {', '.join(not_finite)}. This validation counts as the "
                "worst; if it goes on, lower --learning-rate or use --precision bf16 or fp32."
            )

    def close(self) -> None:
        """Take the bar off the screen, also after an error."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _formatted(name: str, value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.3f}" if name == "eval_loss" else f"{100 * value:.1f}"


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
