"""A review as one HTML page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from captune.app.report.markup import quoted, text
from captune.app.report.thumbnails import thumbnail

if TYPE_CHECKING:
    from captune.app.review import Review
    from captune.data.doubts import ReviewItem
    from captune.data.inside import Boundary

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.4rem; margin: 0; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$list
</main>
</body>
</html>
""")
STYLE = """<style>
.captune-review { list-style: none; margin: 1rem 0; padding: 0; }
.captune-review li { align-items: start; border-top: 1px solid #8884; display: grid; gap: 1rem;
  grid-template-columns: 10rem minmax(0, 1fr) 4rem; padding: .75rem 0; }
.captune-review img, .captune-review .none { background: #8882; border-radius: 4px; display: block; max-width: 100%; }
.captune-review .none { height: 5rem; }
.captune-review p { margin: 0 0 .25rem; overflow-wrap: anywhere; }
.captune-review .name { font-size: .8rem; opacity: .8; }
.captune-review .flag { border: 1px solid #8886; border-radius: 1rem; display: inline-block; font-size: .8rem;
  margin: 0 .25rem .25rem 0; padding: .05rem .6rem; }
.captune-review .sure { font-variant-numeric: tabular-nums; margin: 0; text-align: end; }
@media (max-width: 36rem) { .captune-review li { grid-template-columns: 6rem minmax(0, 1fr) 3rem; } }
</style>"""


def page(review: Review, name: str, folder: Path, boundary: Boundary) -> str:
    """The whole page; pictures are looked for from here and from `folder`, inside of `boundary`."""
    return PAGE.substitute(title=text(f"Captions to review: {name}"), list=listed(review, folder, boundary))


def listed(review: Review, folder: Path, boundary: Boundary) -> str:
    """The list with its style, to stand in any page."""
    flags = ", ".join(f"{flag}: {count:,}" for flag, count in review.flags.items())
    summary = f"{len(review.rows):,} of {review.pictures:,} pictures, the most doubtful first." + (
        f" Flags among all: {flags}." if flags else ""
    )
    rows = "\n".join(f"<li>{_row(row, folder, boundary)}</li>" for row in review.rows)
    return f'{STYLE}\n<p>{text(summary)}</p>\n<ol class="captune-review">\n{rows}\n</ol>'


def _row(row: ReviewItem, folder: Path, boundary: Boundary) -> str:
    small = thumbnail(row.image, folder, boundary)
    picture = f'<img src="{small}" alt="{text(row.caption or row.image)}">' if small else '<div class="none"></div>'
    flags = "".join(f'<span class="flag">{text(flag)}: {text(note)}</span>' for flag, note in row.flags.items())
    sure = "" if row.confidence is None else f"{row.confidence:.2f}"
    return (
        f'<div>{picture}</div><div><p>{quoted(row.caption, "caption")}</p><p class="name">{text(row.image)}</p>'
        f'{flags}</div><p class="sure">{sure}</p>'
    )
