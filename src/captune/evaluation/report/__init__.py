"""`captune report`: an evaluation as one HTML page, as Markdown, and as figures."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from captune.core.config import resolve
from captune.core.errors import UsageError
from captune.core.files import write_text
from captune.core.progress import SILENT, Progress
from captune.evaluation.report.data import ReportData, read_report_data
from captune.evaluation.report.figures import draw_figures
from captune.evaluation.report.markdown import markdown
from captune.evaluation.report.markup import thumbnails as make_thumbnails
from captune.evaluation.report.page import page
from captune.evaluation.report.scores import galleries

REPORT = "report.html"
MARKDOWN = ".md"
THUMBNAILS = 1000


def write_report(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    title: str | None = None,
    thumbnails: int = THUMBNAILS,
    figures: bool = True,
    allow_outside: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Write the report of an evaluation and return the page's path.

    `folder` is what `captune evaluate` wrote, or a run. The page is `out` (a file, or a folder for
    it), by default `report.html` in the folder; the Markdown has the same name with `.md`. Where
    `out` is no place for several files (`/dev/stdout`), the page alone is written. Up to `thumbnails`
    images every row of the page shows its image (about 6 kB each); of more, only the
    best and worst do; 0 shows none. `figures` draws `scores.png`, `captions.png` and
    `test_results.png` as well. Images that an evaluation from elsewhere names outside of its folder are not shown
    unless `allow_outside`. Raises `CaptuneError` where the folder holds no evaluation.
    """
    if out and Path(out).suffix.lower() == MARKDOWN:
        raise UsageError(f"--out {out}: expected the name of the HTML page.", "The Markdown is written beside it.")
    data = read_report_data(folder, allow_outside=allow_outside)
    refused = sum(bool(one.image) and not data.boundary.holds(one.image) for one in data.pictures)
    if refused:
        progress.warn(
            f"{refused:,} images lie outside of {folder}, which was not written here, and are not shown: "
            "--allow-outside shows them."
        )
    target = Path(out) if out else Path(folder)
    target = target / REPORT if target.is_dir() else target
    heading = title or default_title(data)
    chosen = {one.id: one for gallery in galleries(data) for one in gallery.pictures}
    if thumbnails >= len(data.pictures):
        chosen = {one.id: one for one in data.pictures}
    uris = make_thumbnails(tuple(chosen.values()) if thumbnails else (), data.folder, data.boundary, progress)
    write_text(target, page(data, heading, uris, limit=thumbnails))
    if target.exists() and not target.is_file():
        return target
    write_text(target.with_suffix(MARKDOWN), markdown(data, heading))
    if figures:
        draw_figures(data, target.parent, progress)
    return target


def report(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """Draw the report of an evaluation; options are those of `captune report --help`. See `write_report`."""
    resolved = resolve("report", file=config, environment=environment, flags=options, sets=sets)
    chosen = resolved.values.report
    return write_report(
        folder,
        out=out,
        title=chosen.title,
        thumbnails=chosen.thumbnails,
        figures=chosen.figures,
        allow_outside=resolved.values.tables.allow_outside,
        progress=progress,
    )


def default_title(data: ReportData) -> str:
    """The models and the split."""
    first, *others = (model.label for model in data.models)
    against = f" against {', '.join(others)}" if len(others) < 3 else f" against {len(others)} others"
    on = f" on {data.split}" if data.split else ""
    return f"{first}{against if others else ''}{on}"
