"""The report as Markdown, for a model card."""

import re

from captune.core.wording import counted
from captune.evaluation.report.data import Picture, ReportData
from captune.evaluation.report.scores import Gallery, galleries, shown
from captune.evaluation.report.tables import (
    TESTS_NOTE,
    Grid,
    difference_grids,
    repeated_grid,
    score_grid,
    settings_grids,
    source_grid,
    variety_grid,
)

# What Markdown or the HTML inside it would take for its own.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
SHOWN = 5


def markdown(data: ReportData, title: str) -> str:
    """Scores, differences, variety, best and worst captions, settings: each as a table of GitHub's Markdown."""
    counts = f"{counted(len(data.pictures), 'image')}, {counted(data.references, 'reference')}"
    split = f", split {plain(data.split)}" if data.split else ""
    parts = [f"# {plain(title)}", f"{counts}{split}.", "## Scores", grid_table(score_grid(data))]
    differences = difference_grids(data)
    if differences:
        parts += ["## Differences", plain(TESTS_NOTE), *map(grid_table, differences)]
    variety = [grid for grid in (variety_grid(data), repeated_grid(data)) if grid]
    if variety:
        parts += ["## Variety of captions", *map(grid_table, variety)]
    shown_galleries = galleries(data, SHOWN)
    if shown_galleries:
        parts.append("## Examples")
        for gallery in shown_galleries:
            parts += [f"### {plain(gallery.title)}", _gallery_table(data, gallery)]
    parts += ["## Settings and versions", *map(grid_table, [source_grid(data), *settings_grids(data)])]
    return "\n\n".join(parts) + "\n"


def plain(words: object) -> str:
    """Words that mean nothing to Markdown: on one line, special characters escaped."""
    return SPECIAL.sub(r"\\\1", " ".join(str(words).split()))


def grid_table(grid: Grid) -> str:
    """A grid as a Markdown table under its caption."""
    rows = []
    for row in grid.rows:
        cells = []
        for cell in row:
            words = f"**{plain(cell.words)}**" if cell.best else plain(cell.words)
            cells.append(f"{words} {plain(cell.small)}".rstrip())
        rows.append(cells)
    about = grid.note or grid.caption
    return f"{plain(about)}\n\n" + _table([plain(name) for name in grid.head], rows, numbers=grid.numbers)


def _gallery_table(data: ReportData, gallery: Gallery) -> str:
    head = ["picture", *(plain(model.label) for model in data.models), "reference"]
    rows = [
        [plain(one.title), *(_caption(one, place, gallery.key) for place in range(len(data.models))), _reference(one)]
        for one in gallery.pictures
    ]
    return f"{plain(gallery.about)}; the score in brackets.\n\n" + _table(head, rows)


def _caption(one: Picture, place: int, key: str) -> str:
    caption = one.captions[place]
    words = "–" if caption is None else plain(caption) or "(empty)"
    return f"{words} ({plain(shown(key, one.scores[place].get(key)))})"


def _reference(one: Picture) -> str:
    return plain(one.references[0]) if one.references else "–"


def _table(head: list[str], rows: list[list[str]], *, numbers: bool = False) -> str:
    marks = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *rows))
