"""The report as one HTML page that needs nothing else."""

from collections.abc import Mapping
from importlib.resources import files
from string import Template

from captune import __version__
from captune.core.wording import counted
from captune.evaluation.report.charts import distributions, score_bars, training_curves, training_end, validation_table
from captune.evaluation.report.data import Picture, ReportData
from captune.evaluation.report.markup import beside, details, picture, quoted, section, table, text
from captune.evaluation.report.scores import Gallery, galleries, shown
from captune.evaluation.report.tables import (
    TESTS_NOTE,
    Grid,
    difference_grids,
    explorer,
    explorer_data,
    repeated_grid,
    score_grid,
    settings_grids,
    source_grid,
    variety_grid,
)

OPEN_GALLERIES = 4
LIMITED = "With more than {limit:,} images only the best and worst have thumbnails: captune report --thumbnails N"


def page(data: ReportData, title: str, thumbnails: Mapping[str, str], *, limit: int = 0) -> str:
    """The whole page.

    `thumbnails` are data URIs by image id; an image without one gets a box in its place, but in
    the table of all images not where a `limit` (0: none) left most of them without.
    """
    limited = bool(limit) and len(data.pictures) > limit
    note = LIMITED.format(limit=limit) if limited else ""
    sections = {
        "scores": ("Scores", (beside(html_grid(score_grid(data)), score_bars(data)),)),
        "differences": ("Differences", (_differences(data),)),
        "training": ("Training", (training_end(data), training_curves(data), validation_table(data))),
        "examples": ("Examples", (_galleries(data, thumbnails),)),
        "looked": ("Where the model looked", (_attention(data),)),
        "spread": ("Spread over images", (distributions(data),)),
        "variety": ("Variety of captions", tuple(map(_grid_or_none, (variety_grid(data), repeated_grid(data))))),
        "pictures": ("All pictures", (explorer(data, note=note),) if data.pictures else ()),
    }
    drawn = {name: section(name, heading, *content) for name, (heading, content) in sections.items()}
    links = [f'<li><a href="#{name}">{text(sections[name][0])}</a></li>' for name, html in drawn.items() if html]
    links.append('<li><a href="#settings">Settings and versions</a></li>')
    return Template(_part("report.html")).substitute(
        generator=text(f"captune {__version__}"),
        title=text(title),
        summary=_summary(data),
        style=_part("report.css"),
        script=_part("report.js"),
        links="\n".join(links),
        sections="\n".join(html for html in drawn.values() if html),
        footer=_footer(data),
        data=explorer_data(data, thumbnails, boxes=not limited),
    )


def _attention(data: ReportData) -> str:
    """The sheets of attention maps, a word beneath each."""
    sheets = [
        f'<figure><img alt="Maps of the image for the words of: {text(sheet.caption)}" decoding="async" '
        f'src="{sheet.uri}"><figcaption>{text(sheet.id)}: {text(sheet.caption)}</figcaption></figure>'
        for sheet in data.sheets
    ]
    return f'<div class="sheets">{"".join(sheets)}</div>' if sheets else ""


def html_grid(grid: Grid) -> str:
    """A grid as an HTML table."""
    rows = []
    for row in grid.rows:
        cells = []
        for cell in row:
            words = f"<strong>{text(cell.words)}</strong>" if cell.best else f"<bdi>{text(cell.words)}</bdi>"
            cells.append(words + (f' <span class="small">{text(cell.small)}</span>' if cell.small else ""))
        rows.append(cells)
    head = [f"<bdi>{text(name)}</bdi>" if name else "" for name in grid.head]
    if any(head):
        head = [cell or '<span class="hidden">Name</span>' for cell in head]
    note = f'<p class="note">{text(grid.note)}</p>\n' if grid.note else ""
    return note + table(grid.caption, head, rows, numbers=grid.numbers)


def _summary(data: ReportData) -> str:
    counts = [
        counted(len(data.pictures), "image"),
        counted(data.references, "reference"),
        counted(len(data.models), "model"),
    ]
    split = [f"split: {data.split}"] if data.split else []
    return f'<p class="summary">{text(" · ".join([*split, *counts]))}</p>'


def _differences(data: ReportData) -> str:
    grids = difference_grids(data)
    if not grids:
        return ""
    note = f'<p class="note">{text(TESTS_NOTE)}</p>\n' if any(len(grid.head) > 3 for grid in grids) else ""
    return note + '<div class="tables">\n' + "\n".join(map(html_grid, grids)) + "\n</div>"


def _grid_or_none(grid: Grid | None) -> str:
    return html_grid(grid) if grid else ""


def _galleries(data: ReportData, thumbnails: Mapping[str, str]) -> str:
    drawn = []
    wide = " wide" if len(data.models) > 2 else ""
    for place, gallery in enumerate(galleries(data)):
        cards = "\n".join(f"<li>{_card(data, gallery, one, thumbnails)}</li>" for one in gallery.pictures)
        inside = f'<p class="note">{text(gallery.about)}</p>\n<ul class="cards{wide}">\n{cards}\n</ul>'
        if place < OPEN_GALLERIES:
            drawn.append(f'<h3 dir="auto">{text(gallery.title)}</h3>\n{inside}')
        else:
            drawn.append(details(gallery.title, inside))
    return "\n".join(drawn)


def _card(data: ReportData, gallery: Gallery, one: Picture, thumbnails: Mapping[str, str]) -> str:
    lines = []
    for place, model in enumerate(data.models):
        caption = one.captions[place]
        score = one.scores[place].get(gallery.key)
        words = quoted(caption, "caption") if caption is not None else '<em class="empty">no caption</em>'
        lines.append(
            f'<dt><span class="dot m{place % 8}"></span><bdi>{text(model.label)}</bdi> '
            f'<span class="score">{text(shown(gallery.key, score))}</span></dt>'
            f"<dd>{words}</dd>"
        )
    if one.references:
        lines.append(f"<dt>Reference</dt><dd>{quoted(one.references[0], 'reference')}</dd>")
    rest = "".join(f"<li>{quoted(reference, 'reference')}</li>" for reference in one.references[1:])
    more = details(f"{len(one.references) - 1} more", f"<ul>{rest}</ul>") if rest else ""
    return (
        f"<article>{picture(one.alt, thumbnails.get(one.id))}<div><dl>{''.join(lines)}</dl>{more}</div>"
        f'<p class="name">{text(one.title)}</p></article>'
    )


def _footer(data: ReportData) -> str:
    grids = "\n".join(map(html_grid, [source_grid(data), *settings_grids(data)]))
    config = f'<pre tabindex="0" aria-label="config.yaml">{text(data.config)}</pre>' if data.config else ""
    return section("settings", "Settings and versions", grids, details("Options of the training (config.yaml)", config))


def _part(name: str) -> str:
    return files("captune.evaluation.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")
