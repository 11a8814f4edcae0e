"""`captune review`: the captions to check first, as a list or an HTML page."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from captune.captions.provenance import provenance_of
from captune.captions.quality import ReviewItem, review_items
from captune.captions.row import CaptionRow, confidence_in, flags_in
from captune.core.config import resolve
from captune.core.files import write_text
from captune.core.files.limits import parse_json
from captune.core.files.paths import Boundary, Images
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption
from captune.core.stores import DUPLICATES
from captune.datasets.tables.rows import NothingUsable
from captune.evaluation.pairing import Results, read_results
from captune.evaluation.report.markup import quoted, text, thumbnail


def read_captions(path: str | os.PathLike[str]) -> list[CaptionRow]:
    """A row for each image of a file, of a job's folder or of standard input (`-`), as `captune score` reads them.

    Those without a caption come last: images that failed, and what could not be read, named by its place in the file.
    Raises `CaptuneError` where nothing could be read.
    """
    return rows_of(read_results(os.fspath(path), "captions"))


def rows_of(found: Results) -> list[CaptionRow]:
    """A row for each image of what was read; raises as `read_captions`."""
    if not found.texts and not found.failed:
        raise NothingUsable(found.source, found.problems)
    rows = [_row(found, key, texts) for key, texts in found.texts.items()]
    failed = {found.names.get(key, key): reason for key, reason in found.failed.items()}
    failed |= {problem.where: problem.reason for problem in found.problems}
    return [*rows, *(CaptionRow(name, (), "error", reason, "") for name, reason in failed.items())]


def read_duplicates(path: str | os.PathLike[str]) -> dict[str, str]:
    """Of the folder of a job: images that look like an earlier one, and which; empty of anything else."""
    listed = Path(path) / DUPLICATES
    if not listed.is_file():
        return {}
    found: dict[str, str] = {}
    for line in listed.read_text("utf-8").splitlines():
        value = parse_json(line)
        found.setdefault(value["image"], value["duplicate_of"])
    return found


def _row(found: Results, key: str, texts: list[str]) -> CaptionRow:
    beside = found.beside.get(key, {})
    name = found.names.get(key, key)
    try:
        confidence, flags = confidence_in(beside.get("confidence")), flags_in(beside.get("flags"))
    except (TypeError, ValueError):
        reason = f"a confidence that is no number: {beside.get('confidence')!r}"
        return CaptionRow(name, (), "error", reason, "")
    provenance = None
    with suppress(TypeError, ValueError):  # a column of that name in somebody else's file
        provenance = provenance_of(beside)
    captions = tuple(Caption(text, confidence, original=beside.get("original") or None) for text in texts)
    return CaptionRow(name, captions, "ok", None, "", flags, provenance)


@dataclass(frozen=True)
class Review:
    """The captions to look at, the most doubtful first; of how many `pictures`; how many have each of the `flags`."""

    rows: tuple[ReviewItem, ...]
    pictures: int
    flags: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"pictures": self.pictures, "flags": self.flags, "rows": [row.to_json() for row in self.rows]}

    def _repr_html_(self) -> str:
        """In a notebook: the list with thumbnails of images that lie where the file says."""
        return listed(self, Path(), Boundary([os.curdir]))


def review(
    captions: str | os.PathLike[str],
    *,
    html: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Review:
    """The captions of a file or folder that `captune caption` wrote or `captune score` reads, the most doubtful first.

    What cannot be read in it is a row with its place and the reason.
    `html` is a page to write with thumbnails. Options are those of `captune review --help`.
    """
    resolved = resolve("review", file=config, environment=environment, flags=options, sets=sets).values
    with progress.task("Reading the captions"):
        found = review_items(read_captions(captions), same=resolved.review.same, duplicates=read_duplicates(captions))
    counts = Counter(flag for item in found for flag in item.flags)
    listed = [item for item in found if item.flags or not resolved.review.flagged]
    chosen = Review(tuple(listed[: resolved.review.limit or None]), len(found), dict(sorted(counts.items())))
    if html is not None:
        folder = Path(captions) if os.path.isdir(captions) else Path(captions).parent
        images = Images(Path(resolved.tables.images) if resolved.tables.images else None, resolved.tables.allow_outside)
        boundary = images.boundary(folder)
        refused = [row.image for row in chosen.rows if os.path.isfile(row.image) and not boundary.holds(row.image)]
        if refused:
            progress.warn(f"{len(refused):,} images are not shown: {boundary.reason(refused[0])}.")
        with progress.task("Thumbnails"):
            write_text(html, page(chosen, Path(captions).name, images.folder or folder, boundary))
    return chosen


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
    """The whole page; images are looked for from here and from `folder`, inside of `boundary`."""
    return PAGE.substitute(title=text(f"Captions to review: {name}"), list=listed(review, folder, boundary))


def listed(review: Review, folder: Path, boundary: Boundary) -> str:
    """The list with its style, to stand in any page."""
    flags = ", ".join(f"{flag}: {count:,}" for flag, count in review.flags.items())
    summary = f"{len(review.rows):,} of {review.pictures:,} images, the most doubtful first." + (
        f" Flags among all: {flags}." if flags else ""
    )
    rows = "\n".join(f"<li>{_review_page_row(row, folder, boundary)}</li>" for row in review.rows)
    return f'{STYLE}\n<p>{text(summary)}</p>\n<ol class="captune-review">\n{rows}\n</ol>'


def _review_page_row(row: ReviewItem, folder: Path, boundary: Boundary) -> str:
    small = thumbnail(row.image, folder, boundary)
    image = f'<img src="{small}" alt="{text(row.caption or row.image)}">' if small else '<div class="none"></div>'
    flags = "".join(f'<span class="flag">{text(flag)}: {text(note)}</span>' for flag, note in row.flags.items())
    sure = "" if row.confidence is None else f"{row.confidence:.2f}"
    return (
        f'<div>{image}</div><div><p>{quoted(row.caption, "caption")}</p><p class="name">{text(row.image)}</p>'
        f'{flags}</div><p class="sure">{sure}</p>'
    )
