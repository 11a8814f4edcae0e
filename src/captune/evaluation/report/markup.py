"""Pieces of HTML: everything from outside is escaped by `text`; thumbnails as data URIs."""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

from PIL import Image

from captune.core.errors import ImageError
from captune.core.files.paths import Boundary
from captune.core.progress import Progress, track
from captune.evaluation.report.data import Picture, showable
from captune.images.open import open_image


def text(value: object) -> str:
    """Any value as text of a page or of an attribute in double quotes."""
    return escape(showable(str(value)), quote=True)


def quoted(words: str, kind: str) -> str:
    """A caption or a reference, in its own writing direction."""
    return f'<span class="{kind}" dir="auto">{text(words)}</span>' if words else '<em class="empty">empty</em>'


def section(identity: str, heading: str, *content: str) -> str:
    """A landmark with its heading; empty where there is no content."""
    inside = "\n".join(part for part in content if part)
    if not inside:
        return ""
    return (
        f'<section id="{identity}" aria-labelledby="{identity}-h">\n<h2 id="{identity}-h">{text(heading)}</h2>\n'
        f"{inside}\n</section>"
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """A table of ready-made cells, the first of each row its header; wide ones scroll within themselves.

    A `head` of empty cells is left out. With `numbers` all columns but the first stand to the right.
    """
    kind = ' class="numbers"' if numbers else ""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    columns = f"<thead><tr>{columns}</tr></thead>\n" if any(head) else ""
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(caption)}">\n<table{kind}>\n'
        f"<caption>{text(caption)}</caption>\n{columns}<tbody>\n{body}\n</tbody>\n"
        "</table>\n</div>"
    )


def details(summary: str, content: str) -> str:
    """Content behind a line that opens it; empty where there is none."""
    return f"<details><summary>{text(summary)}</summary>\n{content}\n</details>" if content else ""


def beside(*content: str) -> str:
    """Parts side by side where the window is wide enough, else one below the other."""
    inside = "\n".join(part for part in content if part)
    return f'<div class="beside">\n{inside}\n</div>' if inside else ""


def picture(alt: str, uri: str | None) -> str:
    """A thumbnail, or a box that says there is none."""
    if uri is None:
        return f'<span class="thumb none" role="img" aria-label="No image: {text(alt)}">no image</span>'
    return f'<img class="thumb" alt="{text(alt)}" src="{uri}" decoding="async">'


SIDE = 160
QUALITY = 60


def thumbnails(pictures: Sequence[Picture], folder: Path, boundary: Boundary, progress: Progress) -> dict[str, str]:
    """A JPEG data URI for each image's id, `SIDE` pixels on its longer side; those that cannot be opened are absent.

    A path that is not absolute is looked for from here and from `folder`; what lies outside of `boundary` is absent.
    """
    found: dict[str, str] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        small = threads.map(lambda picture: thumbnail(picture.image, folder, boundary), pictures)
        for picture, uri in track(zip(pictures, small, strict=True), progress, "Thumbnails", len(pictures)):
            if uri:
                found[picture.id] = uri
    return found


def located(image: str, folder: Path, boundary: Boundary) -> Path | None:
    """Where an image lies, or None if it is not there, or may not be named."""
    if not image:
        return None
    paths = (Path(image), folder / image)
    return next((path for path in paths if boundary.holds(path) and os.path.isfile(path)), None)


def thumbnail(image: str, folder: Path, boundary: Boundary) -> str | None:
    """A JPEG data URI of one image, or None where it cannot be opened."""
    picture = small_image(image, folder, boundary, SIDE)
    if picture is None:
        return None  # the page shows that there is no image; the captions stand all the same
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def small_image(image: str, folder: Path, boundary: Boundary, side: int) -> Image.Image | None:
    """An image, upright, at most `side` pixels on its longer side, or None where it cannot be opened."""
    path = located(image, folder, boundary)
    if path is None:
        return None
    try:
        picture = open_image(path)
    except ImageError:
        return None
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return picture
