"""Small copies of pictures as data URIs, so that a page carries them within itself."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from captune.app.report.facts import Picture
from captune.core.errors import ImageError
from captune.core.progress import SILENT, Progress, track
from captune.data.images import open_image
from captune.data.inside import Boundary

SIDE = 160
QUALITY = 60


def thumbnails(
    pictures: Sequence[Picture], folder: Path, boundary: Boundary, *, side: int = SIDE, progress: Progress = SILENT
) -> dict[str, str]:
    """A JPEG data URI for each picture's id, `side` pixels on its longer side; those that cannot be opened are absent.

    A path that is not absolute is looked for from here and from `folder`; what lies outside of `boundary` is absent.
    """
    found: dict[str, str] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        small = threads.map(lambda picture: thumbnail(picture.image, folder, boundary, side), pictures)
        for picture, uri in track(zip(pictures, small, strict=True), progress, "Thumbnails", len(pictures)):
            if uri:
                found[picture.id] = uri
    return found


def located(image: str, folder: Path, boundary: Boundary) -> Path | None:
    """Where a picture lies, or None if it is not there, or may not be named."""
    if not image:
        return None
    paths = (Path(image), folder / image)
    return next((path for path in paths if boundary.holds(path) and os.path.isfile(path)), None)


def thumbnail(image: str, folder: Path, boundary: Boundary, side: int = SIDE) -> str | None:
    """A JPEG data URI of one picture, or None where it cannot be opened."""
    path = located(image, folder, boundary)
    if path is None:
        return None
    try:
        picture = open_image(path)
    except ImageError:
        return None  # the page shows that there is no picture; the captions stand all the same
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
