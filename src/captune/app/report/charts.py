"""The figures of a report: scores as bars, training as curves, pictures as histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captune.app.report.facts import Model, ReportData
from captune.app.report.markup import details, table, text
from captune.app.report.scores import LIKELIHOODS, label, ranking_key, scaled, shown
from captune.app.report.svg import Bar, Line, bars, counted, curves, histogram, ticks
from captune.core.endings import ending_text

BINS = 24


def score_bars(data: ReportData) -> str:
    """One small figure for each score, every one on a scale of its own."""
    drawn = []
    for key in data.keys:
        if key in LIKELIHOODS:
            continue
        name = f"{label(key)} × 100"
        values = [_bar(key, model, place) for place, model in enumerate(data.models) if key in model.scores]
        drawn.append(_figure(name, bars(name, values)))
    return _figures(drawn)


def training_curves(data: ReportData) -> str:
    """Loss and scores of the validations over epochs; empty without a history."""
    drawn = []
    losses = [
        Line(name, points, marked)
        for name, points, marked in (
            ("validation loss", _points(data.history, "eval_loss"), True),
            ("training loss", _points(data.history, "loss"), False),
        )
        if points
    ]
    if losses:
        drawn.append(_figure("Loss, nats a token", curves("Loss over epochs", losses, x_name="epoch")))
    for key in validation_keys(data.history):
        if key not in LIKELIHOODS:
            name = f"{label(key)} × 100"
            line = Line(f"{label(key)} on the validation split", _points(data.history, f"eval_{key}"), True)
            drawn.append(_figure(name, curves(f"{name} over epochs", [line], x_name="epoch", from_zero=True)))
    return _figures(drawn)


def training_end(data: ReportData) -> str:
    """Why the training ended."""
    if not data.manifest or not data.history:
        return ""
    return f'<p class="note">Training ended: {text(ending_text(data.manifest))}.</p>'


def validation_table(data: ReportData) -> str:
    """The numbers behind the curves."""
    keys = validation_keys(data.history)
    rows = [
        [
            f"{line.get('epoch', 0):.4g}",
            str(line.get("step", "")),
            *(shown(key, line.get(f"eval_{key}")) for key in keys),
        ]
        for line in data.history
        if any(f"eval_{key}" in line for key in keys)
    ]
    if not rows:
        return ""
    head = ["Epoch", "Step", *(text(label(key)) for key in keys)]
    return details("The numbers", table("Validations during training, scores × 100", head, rows))


def validation_keys(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Scores of the validations, without the `eval_` of the file."""
    return list(
        dict.fromkeys(
            key.removeprefix("eval_")
            for line in history
            for key, value in line.items()
            if key.startswith("eval_") and isinstance(value, int | float)
        )
    )


def distributions(data: ReportData) -> str:
    """How the pictures' scores are spread, one histogram for each model over the same range."""
    key = ranking_key(key for key in data.picture_keys if key != "confidence")
    if key is None:
        return ""
    values = [
        [scaled(key, picture.scores[place][key]) for picture in data.pictures if key in picture.scores[place]]
        for place in range(len(data.models))
    ]
    every = sorted(value for one in values for value in one)
    if not every:
        return ""
    # A few outliers would squeeze all others into the first bars.
    highest = every[min(len(every) - 1, int(0.995 * len(every)))] or every[-1] or 1.0
    highest = max([highest, *ticks(0, highest)[-1:]])
    if round(highest / BINS, 6) == 0:  # as good as nothing: smoothed scores are never quite 0
        highest = 1.0
    edges = [round(highest * step / BINS, 6) for step in range(BINS + 1)]
    most = max(max(counted(one, edges)) for one in values if one)
    drawn = []
    for place, (model, one) in enumerate(zip(data.models, values, strict=True)):
        if one:
            words = _spoken_spread(one)
            name = f"{label(key)} of single pictures, {model.label}"
            drawn.append(
                _figure(model.label, histogram(name, words, one, edges, most, place), f"{label(key)}: {words}.")
            )
    return _figures(drawn)


def _spoken_spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    low, middle, high = (ordered[int(part * (len(ordered) - 1))] for part in (0.25, 0.5, 0.75))
    zero = sum(value <= 0 for value in values)
    nothing = f", {zero:,} with 0" if zero else ""
    return f"{len(values):,} pictures, median {middle:.1f}, middle half {low:.1f} to {high:.1f}{nothing}"


def _bar(key: str, model: Model, place: int) -> Bar:
    value, interval = model.scores[key], model.intervals.get(key)
    low, high = interval or (None, None)
    spoken = f"{model.label} {shown(key, value)}"
    if interval:
        spoken += f", 95 % interval {shown(key, low)} to {shown(key, high)}"
    return Bar(model.label, value, low, high, shown(key, value), spoken, place)


def _points(history: Sequence[Mapping[str, Any]], key: str) -> tuple[tuple[float, float], ...]:
    name = key.removeprefix("eval_")
    return tuple(
        (float(line["epoch"]), scaled(name, float(line[key])))
        for line in history
        if isinstance(line.get(key), int | float) and isinstance(line.get("epoch"), int | float)
    )


def _figure(caption: str, svg: str, note: str = "") -> str:
    under = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<figure><figcaption>{text(caption)}</figcaption>{svg}{under}</figure>"


def _figures(drawn: Sequence[str]) -> str:
    return '<div class="figures">\n' + "\n".join(drawn) + "\n</div>" if drawn else ""
