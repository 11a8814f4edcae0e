"""Figures of an evaluation as PNG files: scores, and sheets of images with captions."""

import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captune.core.errors import ImageError
from captune.core.files import atomic_file
from captune.core.progress import SILENT, Progress, track
from captune.evaluation.report.data import Picture, ReportData
from captune.evaluation.report.markup import located
from captune.evaluation.report.scores import is_likelihood, label, ranking_key, scaled, shown
from captune.images.open import open_image

WRAP = 34
LINE = 12  # points from one line to the next
MOST_LINES = 200  # a caption of some 6,000 letters: more than that would make a figure that no one can open
SIDE = 400  # more pixels than an image takes on the sheet


def draw_sheet(
    pictures: Sequence[str | Path],
    captions: Sequence[Sequence[tuple[str, str]]],
    path: str | Path,
    *,
    columns: int = 3,
    right: Sequence[bool] | None = None,
) -> None:
    """Write a PNG of `pictures` in rows of `columns`, each above its (model, caption) pairs.

    `right` draws the last caption of an image in green (True) or red (False).
    """
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // columns)
    depths = [sum(len(_wrapped(f"{model}: {text}")) for model, text in each) for each in captions]
    # A row is as high as its longest captions need.
    heights = [2.6 + LINE * max(depths[row * columns : (row + 1) * columns]) / 72 for row in range(rows)]
    figure = Figure(figsize=(3 * columns, sum(heights)), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index >= len(pictures):
            continue
        image = open_image(str(pictures[index]))
        image.thumbnail((SIDE, SIDE))
        axis.imshow(image)
        axis.set_anchor("S")  # the captions of a row begin at the same height
        line = 0
        for place, (model, text) in enumerate(captions[index]):
            last = place == len(captions[index]) - 1
            color = "black" if last else "0.5"
            if last and right is not None:
                color = "tab:green" if right[index] else "tab:red"
            wrapped = _wrapped(f"{model}: {text}")
            axis.annotate(
                "\n".join(wrapped),
                (0.5, 0),
                (0, -4 - LINE * line),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8.5,
                color=color,
                parse_math=False,
            )
            line += len(wrapped)
    with atomic_file(path, "wb") as file, warnings.catch_warnings():
        # A character that the font lacks, such as an emoji, is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png")


def _wrapped(text: str) -> list[str]:
    """A caption as lines that fit beneath its image; the whole of it, unless it is longer than `MOST_LINES`."""
    lines = [""]
    for word in text.split():
        if lines[-1] and _width(f"{lines[-1]} {word}") <= WRAP:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for sign in word:  # a word that is longer than a line is broken
            if _width(lines[-1] + sign) > WRAP:
                lines.append("")
            lines[-1] += sign
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "…"]


def _width(text: str) -> int:
    """Columns that a text takes: two for a wide sign, as of Chinese or Japanese, none for a mark above another sign."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


SCORES = "scores.png"
SIDE_BY_SIDE = "captions.png"
TEST_RESULTS = "test_results.png"
ON_A_SHEET = 12
SEED = 42


def draw_figures(data: ReportData, folder: Path, progress: Progress = SILENT) -> list[Path]:
    """Write the figures that the data allows, and return their paths.

    `scores.png`: all scores as bars with their intervals. `test_results.png`: the first
    model's captions with their score, each above a reference. `captions.png`, for several
    models: what each says of the same images. The images are drawn by lot, with a fixed
    seed; none is chosen. Those that cannot be opened are passed over.
    """
    written = []
    if any(not is_likelihood(key) for key in data.keys):
        _draw_scores(data, folder / SCORES)
        written.append(folder / SCORES)
    images = _by_lot(data)
    sheets = {TEST_RESULTS: [_result(data, one) for one, _ in images]}
    if len(data.models) > 1:
        sheets[SIDE_BY_SIDE] = [_side_by_side(data, one) for one, _ in images]
    if images:
        for name, captions in track(sheets.items(), progress, "Figures", len(sheets)):
            draw_sheet([path for _, path in images], captions, folder / name)
            written.append(folder / name)
    return written


def _by_lot(data: ReportData) -> list[tuple[Picture, Path]]:
    """Images that open, with where they lie."""
    found: list[tuple[Picture, Path]] = []
    for index in np.random.default_rng(SEED).permutation(len(data.pictures)):
        image = data.pictures[index]
        path = located(image.image, data.folder, data.boundary)
        if path is None:
            continue
        try:
            open_image(path)
        except ImageError:
            continue
        found.append((image, path))
        if len(found) == ON_A_SHEET:
            break
    return found


def _result(data: ReportData, one: Picture) -> list[tuple[str, str]]:
    key = ranking_key(data)
    score = one.scores[0].get(key) if key else None
    reference = [("reference", one.references[0])] if one.references else []
    measured = f"{label(key)} {shown(key, score)}" if key else data.models[0].label
    return [*reference, (measured, one.captions[0] or "")]


def _side_by_side(data: ReportData, one: Picture) -> list[tuple[str, str]]:
    # The first model stands last: a sheet prints its last line strongest.
    order = [*range(1, len(data.models)), 0]
    return [(data.models[place].label, one.captions[place] or "") for place in order]


def _draw_scores(data: ReportData, path: Path) -> None:
    """Bars of every score in one figure, × 100, with 95 % intervals where there are any."""
    from matplotlib.figure import Figure

    keys = [key for key in data.keys if not is_likelihood(key)]
    thick = 0.8 / len(data.models)
    figure = Figure(figsize=(8, 1.2 + len(keys) * (0.25 + 0.22 * len(data.models))), dpi=120, layout="constrained")
    axis = figure.subplots()
    for place, model in enumerate(data.models):
        known = [(row, key) for row, key in enumerate(keys) if key in model.scores]
        if not known:
            continue
        rows = [row + (place - (len(data.models) - 1) / 2) * thick for row, _ in known]
        values = [scaled(key, model.scores[key]) for _, key in known]
        bounds = [model.intervals.get(key, (model.scores[key],) * 2) for _, key in known]
        below = [max(0.0, v - scaled(k, low)) for v, (_, k), (low, _) in zip(values, known, bounds, strict=True)]
        above = [max(0.0, scaled(k, high) - v) for v, (_, k), (_, high) in zip(values, known, bounds, strict=True)]
        errors = [below, above] if model.intervals else None
        # A dollar sign would begin a formula.
        drawn = axis.barh(rows, values, 0.92 * thick, xerr=errors, capsize=2, label=model.label.replace("$", r"\$"))
        words = [f" {shown(key, model.scores[key])}" for _, key in known]
        axis.bar_label(drawn, words, fontsize=8, padding=2)
    axis.set_yticks(range(len(keys)), [label(key) for key in keys])
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.set_xlabel("score × 100" + (", with 95 % intervals" if any(m.intervals for m in data.models) else ""))
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    if len(data.models) > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    with atomic_file(path, "wb") as file:
        figure.savefig(file, format="png")
