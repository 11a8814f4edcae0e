"""Images with their captions on one sheet: a page of HTML that needs no other file, or a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from PIL import Image, ImageDraw, PngImagePlugin

from captune.core.errors import UsageError
from captune.core.files import atomic_file
from captune.core.files.paths import Boundary
from captune.core.progress import SILENT, Progress, track
from captune.core.text import without_controls
from captune.core.wording import counted
from captune.evaluation.report.data import showable
from captune.evaluation.report.markup import quoted, small_image, text, thumbnail
from captune.evaluation.review import PAGE
from captune.images.lettering import font_of, lacks, wrapped
from captune.library.duplicates import DuplicateGroup

T = TypeVar("T")
MARK = "captune-sheet"
STYLE = """<style>
.captune-sheet { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.captune-sheet figure { margin: 0; overflow-wrap: anywhere; }
.captune-sheet img, .captune-sheet .none { background: #8882; border-radius: 4px; display: block; max-width: 100%; }
.captune-sheet .none { height: 5rem; }
.captune-sheet figcaption { font-size: .9rem; }
.captune-sheet code { display: block; font-size: .75rem; opacity: .8; }
.captune-group { border-top: 1px solid #8884; margin: 1rem 0; padding-top: 1rem; }
</style>"""
# Images on a sheet at most: a page has 8 KB for each, a picture of more could not be opened.
ON_PAGE, ON_PICTURE = 5_000, 500
PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_COLUMNS, _SIDE, _GAP, _LETTERS, _LINE, _LINES = 5, 240, 16, 14, 18, 3
# Of a caption so much is read: three lines hold less.
_LETTERS_READ = 500
_PAPER, _INK, _BOX = (255, 255, 255), (28, 28, 32), (236, 236, 240)


class Shown(Protocol):
    """An image of a library by its path in it, with a caption, which may be empty."""

    @property
    def path(self) -> str: ...
    @property
    def caption(self) -> str: ...


def write_sheet(
    file: str | os.PathLike[str],
    title: str,
    groups: Sequence[Sequence[Shown]],
    folder: Path,
    progress: Progress = SILENT,
) -> None:
    """Write groups of images as a sheet: a page (.html), or a picture (.jpg, .png) without the groups' borders.

    Raises `UsageError` for another kind of file, for too many images, and for a file that is there and no sheet.
    """
    path, count = Path(file), sum(map(len, groups))
    ending = path.suffix.lower()
    if ending not in (".html", ".htm", *PICTURES):
        raise UsageError(f"{path} is neither a page nor a picture.", "Name it sheet.html, sheet.jpg or sheet.png.")
    most = ON_PICTURE if ending in PICTURES else ON_PAGE
    if count > most:
        instead = f", or a page: {path.with_suffix('.html')}" if ending in PICTURES else ""
        raise UsageError(f"{count:,} images are too many for {path}: at most {most:,}.", f"Take fewer{instead}.")
    if ending in PICTURES and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{path} lies in the library: the sheet would be one of its images.", "Write it elsewhere.")
    if path.exists() and not is_sheet(path):
        raise UsageError(f"{path} is there already, and it is no sheet of captune's.", "Choose another name.")
    images = [image for group in groups for image in group]
    if ending in PICTURES:
        _save(path, _picture(images, folder, progress))
        if lacking := sum(lacks(font_of(_LETTERS), image.caption) for image in images):
            progress.warn(
                f"The font has not all signs of {lacking:,} captions; a browser has: {path.with_suffix('.html')}"
            )
        return
    content = _all_figures(groups, folder, progress)
    with atomic_file(path) as out:
        out.write(
            PAGE.substitute(title=text(title), list=f"<p>{counted(count, 'image')} of {text(folder)}</p>\n{content}")
        )


def is_sheet(path: Path) -> bool:
    """Whether captune wrote a file as a sheet."""
    try:
        if path.suffix.lower() in PICTURES:
            with Image.open(path) as image:
                return image.info.get("comment") in (MARK, MARK.encode())
        return f'class="{MARK}"' in path.read_text("utf-8", "replace")
    except OSError:
        return False


def figures(images: Sequence[Shown], folder: Path) -> str:
    """A grid of thumbnails with captions, with its style, to stand in any page.

    Images that cannot be opened, or lie outside of the folder, are empty boxes.
    """
    return _all_figures([images], folder, SILENT)


def group_figures(groups: Sequence[DuplicateGroup], folder: Path) -> str:
    """The same, a grid for each group."""
    return _all_figures([group.images for group in groups], folder, SILENT)


def _all_figures(groups: Sequence[Sequence[Shown]], folder: Path, progress: Progress) -> str:
    boundary = Boundary([folder])
    images = [image for group in groups for image in group]

    def uri_of(image: Shown) -> str | None:
        return thumbnail(os.path.join(folder, image.path), folder, boundary)

    made = (_figure(image, uri) for image, uri in zip(images, _opened(uri_of, images, progress), strict=True))
    grids = [f'<div class="{MARK}">\n{"".join(next(made) for _ in group)}</div>' for group in groups]
    if len(groups) > 1:
        grids = [f'<section class="captune-group">\n{grid}\n</section>' for grid in grids]
    return "\n".join([STYLE, *grids])


def _figure(image: Shown, uri: str | None) -> str:
    shown = f'<img src="{uri}" alt="{text(image.caption or image.path)}">' if uri else '<div class="none"></div>'
    caption = quoted(image.caption, "caption") if image.caption else "<em>no caption</em>"
    return f"<figure>{shown}<figcaption>{caption}<code>{text(image.path)}</code></figcaption></figure>\n"


def _opened(open_one: Callable[[Shown], T], images: Sequence[Shown], progress: Progress) -> Iterator[T]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        yield from track(threads.map(open_one, images), progress, "Thumbnails", len(images))


def _picture(images: Sequence[Shown], folder: Path, progress: Progress) -> Image.Image:
    """Thumbnails in rows of five, the caption of each below it."""
    boundary, font = Boundary([folder]), font_of(_LETTERS)

    def small(image: Shown) -> Image.Image | None:
        return small_image(os.path.join(folder, image.path), folder, boundary, _SIDE)

    across, down = _SIDE + _GAP, _SIDE + _LINES * _LINE + _GAP
    columns, rows = max(1, min(_COLUMNS, len(images))), max(1, -(-len(images) // _COLUMNS))
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, (image, opened) in enumerate(zip(images, _opened(small, images, progress), strict=True)):
        x, y = _GAP + n % _COLUMNS * across, _GAP + n // _COLUMNS * down
        if opened is None:
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), _BOX)
        else:
            sheet.paste(opened, (x + (_SIDE - opened.width) // 2, y + (_SIDE - opened.height) // 2))
        words = without_controls(showable(image.caption or image.path))[:_LETTERS_READ]
        for number, line in enumerate(wrapped(words, font, _SIDE, _LINES)):
            draw.text((x, y + _SIDE + 2 + number * _LINE), line, _INK, font)
    return sheet


def _save(path: Path, sheet: Image.Image) -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("comment", MARK)
    with atomic_file(path, "wb") as out:
        sheet.save(out, PICTURES[path.suffix.lower()], comment=MARK, pnginfo=note, quality=85)
