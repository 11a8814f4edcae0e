"""Figures of an evaluation as PNG files: scores as bars, and sheets of pictures with captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from captune.app.report.facts import Picture, ReportData
from captune.app.report.scores import LIKELIHOODS, label, ranking_key, scaled, shown
from captune.app.report.thumbnails import located
from captune.core.errors import ImageError
from captune.core.files import atomic_file
from captune.core.progress import SILENT, Progress, track
from captune.data.images import open_image

SCORES = "scores.png"
SIDE_BY_SIDE = "captions.png"
TEST_RESULTS = "test_results.png"
ON_A_SHEET = 12
SEED = 42


def draw_figures(data: ReportData, folder: Path, progress: Progress = SILENT) -> list[Path]:
    """Write the figures that the data allows, and return their paths.

    `scores.png`: all scores as bars with their intervals. `test_results.png`: the first
    model's captions with their score, each above a reference. `captions.png`, for several
    models: what each says of the same pictures. The pictures are drawn by lot, with a fixed
    seed; none is chosen. Those that cannot be opened are passed over.
    """
    from captune.engine.sheet import draw_sheet

    written = []
    if any(key not in LIKELIHOODS for key in data.keys):
        _draw_scores(data, folder / SCORES)
        written.append(folder / SCORES)
    pictures = _by_lot(data)
    sheets = {TEST_RESULTS: [_result(data, one) for one, _ in pictures]}
    if len(data.models) > 1:
        sheets[SIDE_BY_SIDE] = [_side_by_side(data, one) for one, _ in pictures]
    if pictures:
        for name, captions in track(sheets.items(), progress, "Figures", len(sheets)):
            draw_sheet([path for _, path in pictures], captions, folder / name)
            written.append(folder / name)
    return written


def _by_lot(data: ReportData) -> list[tuple[Picture, Path]]:
    """Pictures that open, with where they lie."""
    found: list[tuple[Picture, Path]] = []
    for index in np.random.default_rng(SEED).permutation(len(data.pictures)):
        picture = data.pictures[index]
        path = located(picture.image, data.folder, data.boundary)
        if path is None:
            continue
        try:
            open_image(path)
        except ImageError:
            continue
        found.append((picture, path))
        if len(found) == ON_A_SHEET:
            break
    return found


def _result(data: ReportData, one: Picture) -> list[tuple[str, str]]:
    key = ranking_key(key for key in data.picture_keys if key != "confidence")
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

    keys = [key for key in data.keys if key not in LIKELIHOODS]
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
