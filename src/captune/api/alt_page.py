"""A page to review alternative texts: each image small, with its text, where it stands and what is odd."""

import os
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from captune.core.files import write_text
from captune.core.files.paths import Boundary
from captune.core.wording import counted
from captune.evaluation.report.markup import quoted, text, thumbnail
from captune.evaluation.review import PAGE, STYLE
from captune.pages.find import REASONS
from captune.pages.site import Site

if TYPE_CHECKING:
    from captune.api.alt import AltReport, AltRow

_ROW = Template(
    '<li><div>$image</div><div><p>$words</p><p class="name">$place</p>$flags</div><p class="sure">$sure</p></li>'
)


def write_page(path: str | os.PathLike[str], report: "AltReport", site: Site) -> None:
    """Write the page; texts for review come first, then those of the patch, then images that get none."""
    order = sorted(report.rows, key=lambda row: (row.proposed, row.text is None))
    boundary = Boundary([Path(row.file).parent for row in report.rows if row.file and site.holds(Path(row.file))])
    rows = "\n".join(_listed(row, boundary) for row in order)
    images, pages = counted(len(report.rows), "image"), counted(report.pages, "page")
    summary = f"{images} on {pages}; {report.remaining:,} still without a text."
    content = f'{STYLE}\n<p>{text(summary)}</p>\n<ol class="captune-review">\n{rows}\n</ol>'
    write_text(path, PAGE.substitute(title=text(f"Alternative texts: {site.folder}"), list=content))


def _listed(row: "AltRow", boundary: Boundary) -> str:
    small = thumbnail(row.file, Path(), boundary) if row.file else None
    words = row.text if row.text is not None else row.alt
    notes = {**row.flags, **({row.reason: REASONS.get(row.reason, "")} if row.reason else {})}
    return _ROW.substitute(
        image=f'<img src="{small}" alt="{text(words or row.image)}">' if small else '<div class="none"></div>',
        words=quoted(words or "", "caption"),
        place=text(f"{row.page}:{row.line} · {row.image}"),
        flags="".join(
            f'<span class="flag">{text(name)}{": " if why else ""}{text(why)}</span>' for name, why in notes.items()
        ),
        sure="" if row.confidence is None else f"{row.confidence:.2f}",
    )
