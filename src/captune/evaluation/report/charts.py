"""Charts of a report as inline SVG: score bars, training curves, histograms.

All are 360 units wide, so that their words stay readable on a phone. Colours are the classes
`m0` … `m7` of the style sheet.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from captune.core.runs import ending_text
from captune.evaluation.report.data import Model, ReportData
from captune.evaluation.report.markup import details, table, text
from captune.evaluation.report.scores import is_likelihood, label, ranking_key, scaled, shown

WIDTH = 360
COLOURS = 8
POINTS = 300
NAME_LENGTH = 52


@dataclass(frozen=True)
class Bar:
    """A value with its interval, its words, and the place of its model, which gives the colour."""

    name: str
    value: float
    low: float | None
    high: float | None
    shown: str
    description: str
    place: int = 0


@dataclass(frozen=True)
class Line:
    """Points (x, y) in the order of x; with `marked` each has a dot."""

    name: str
    points: tuple[tuple[float, float], ...]
    marked: bool = False


def bars(label: str, values: Sequence[Bar]) -> str:
    """One bar from zero for each value, its 95 % interval as a whisker."""
    most = max([0.0, *(max(bar.value, bar.high or 0.0) for bar in values)]) or 1.0
    room = WIDTH - 70
    parts = []
    for row, bar in enumerate(values):
        top, length = 38 * row, max(1.0, room * max(0.0, bar.value) / most)
        end = length
        parts.append(f'<text x="0" y="{top + 12}">{escape(_cut(bar.name))}</text>')
        parts.append(
            f'<rect class="m{bar.place % COLOURS}" x="0" y="{top + 17}" width="{length:.1f}" height="12" rx="2"/>'
        )
        if bar.low is not None and bar.high is not None:
            low, high = (room * max(0.0, edge) / most for edge in (bar.low, bar.high))
            end = max(end, high)
            middle = top + 23
            parts.append(
                f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}'
                f'M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
            )
        parts.append(f'<text class="value" x="{end + 7:.1f}" y="{top + 27}">{escape(bar.shown)}</text>')
    description = f"{label}: " + "; ".join(bar.description for bar in values)
    return _svg(description, 38 * len(values) - 4, parts)


def curves(label: str, lines: Sequence[Line], *, x_name: str, from_zero: bool = False) -> str:
    """Lines over a common x axis, each with a legend above the plot."""
    points = [point for line in lines for point in line.points]
    height = 210
    left, right, bottom, top = 42.0, 8.0, 34.0, 12.0 + 16 * len(lines)
    x_low, x_high = _spread([x for x, _ in points])
    y_low, y_high = _spread([y for _, y in points] + ([0.0] if from_zero else []))
    y_ticks = ticks(y_low, y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (WIDTH - left - right) * (x - x_low) / (x_high - x_low),
            top + (height - top - bottom) * (1 - (y - y_low) / (y_high - y_low)),
        )

    parts = []
    for tick in y_ticks:
        y = at(x_low, tick)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{WIDTH - right}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{left - 6}" y="{y + 4:.1f}">{tick:g}</text>')
    for tick in ticks(x_low, x_high):
        x = at(tick, y_low)[0]
        parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{height - bottom + 15}">{tick:g}</text>')
    parts.append(f'<text class="tick" text-anchor="end" x="{WIDTH - right}" y="{height - 3}">{escape(x_name)}</text>')
    for place, line in enumerate(lines):
        thin = [at(x, y) for x, y in thinned(line.points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in thin)
        dash = " dashed" if place % 2 else ""
        parts.append(f'<polyline class="m{place % COLOURS}{dash}" points="{path}"/>')
        if line.marked or len(thin) == 1:
            parts += [f'<circle class="m{place % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in thin]
        parts.append(f'<path class="key m{place % COLOURS}{dash}" d="M{left} {10 + 16 * place}h22"/>')
        parts.append(f'<text x="{left + 28}" y="{14 + 16 * place}">{escape(_cut(line.name))}</text>')
    return _svg(f"{label}: " + "; ".join(map(describe_line, lines)), height, parts)


def histogram(
    label: str, description: str, values: Sequence[float], edges: Sequence[float], most: int, place: int
) -> str:
    """How many of the values lie between each two edges; bars reach `most` at full height."""
    height, floor = 110, 88.0
    counts = counted(values, edges)
    step = WIDTH / len(counts)
    parts = [f'<path class="grid" d="M0 {floor}H{WIDTH}"/>']
    for index, count in enumerate(counts):
        tall = max(floor * 0.9 * count / max(1, most), 1.0 if count else 0.0)
        parts.append(
            f'<rect class="m{place % COLOURS}" x="{index * step + 0.5:.1f}" y="{floor - tall:.1f}" '
            f'width="{step - 1:.1f}" height="{tall:.1f}"><title>{edges[index]:g} to {edges[index + 1]:g}: {count}'
            "</title></rect>"
        )
    for tick in ticks(edges[0], edges[-1]):
        x = WIDTH * (tick - edges[0]) / (edges[-1] - edges[0])
        anchor = "start" if x < 12 else "end" if x > WIDTH - 12 else "middle"
        parts.append(f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" y="{height - 6}">{tick:g}</text>')
    return _svg(f"{label}: {description}", height, parts)


def counted(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Number of values between each two of the evenly spaced edges; what lies outside counts at the end."""
    counts = [0] * (len(edges) - 1)
    width = (edges[-1] - edges[0]) / len(counts)
    for value in values:
        counts[min(len(counts) - 1, max(0, int((value - edges[0]) / width)))] += 1
    return counts


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    raw = (high - low) / 5
    if raw <= 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * number, 10) for number in range(first, last + 1)] or [low]


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: neighbours are averaged."""
    size = -(-len(points) // most) if points else 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def describe_line(line: Line) -> str:
    """A line in words: where it begins, where it ends, its lowest and highest."""
    (x0, y0), (x1, y1) = line.points[0], line.points[-1]
    if len(line.points) == 1:
        return f"{line.name} {y0:.4g} at {x0:.3g}"
    (xl, yl), (xh, yh) = min(line.points, key=lambda p: p[1]), max(line.points, key=lambda p: p[1])
    return (
        f"{line.name} from {y0:.4g} at {x0:.3g} to {y1:.4g} at {x1:.3g}, "
        f"lowest {yl:.4g} at {xl:.3g}, highest {yh:.4g} at {xh:.3g}"
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _cut(name: str) -> str:
    """The end of a long name: it is where names differ."""
    return name if len(name) <= NAME_LENGTH else "…" + name[-NAME_LENGTH + 1 :]


def _svg(description: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:g}" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )


BINS = 24


def score_bars(data: ReportData) -> str:
    """One small figure for each score, every one on a scale of its own."""
    drawn = []
    for key in data.keys:
        if is_likelihood(key):
            continue
        name = f"{label(key)} × 100"
        values = [_bar(key, model, place) for place, model in enumerate(data.models) if key in model.scores]
        drawn.append(_figure(name, bars(name, values)))
    return _figures(drawn)


def training_curves(data: ReportData) -> str:
    """Loss and scores of the validations over epochs; empty without a history."""
    drawn = []
    names = {"eval_loss": "validation loss", "loss": "training loss"}
    lines = [Line(name, _points(data.history, key), key == "eval_loss") for key, name in names.items()]
    losses = [line for line in lines if line.points]
    if losses:
        drawn.append(_figure("Loss, nats a token", curves("Loss over epochs", losses, x_name="epoch")))
    for key in validation_keys(data.history):
        if not is_likelihood(key):
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
    """How the images' scores are spread, one histogram for each model over the same range."""
    key = ranking_key(data)
    if key is None:
        return ""
    values = [
        [scaled(key, image.scores[place][key]) for image in data.pictures if key in image.scores[place]]
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
            words = _describe_spread(one)
            chart = histogram(f"{label(key)} of single images, {model.label}", words, one, edges, most, place)
            drawn.append(_figure(model.label, chart, f"{label(key)}: {words}."))
    return _figures(drawn)


def _describe_spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    low, middle, high = (ordered[int(part * (len(ordered) - 1))] for part in (0.25, 0.5, 0.75))
    zero = sum(value <= 0 for value in values)
    nothing = f", {zero:,} with 0" if zero else ""
    return f"{len(values):,} images, median {middle:.1f}, middle half {low:.1f} to {high:.1f}{nothing}"


def _bar(key: str, model: Model, place: int) -> Bar:
    value, interval = model.scores[key], model.intervals.get(key)
    low, high = interval or (None, None)
    description = f"{model.label} {shown(key, value)}"
    if interval:
        description += f", 95 % interval {shown(key, low)} to {shown(key, high)}"
    return Bar(model.label, value, low, high, shown(key, value), description, place)


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
