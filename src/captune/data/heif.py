"""HEIC and HEIF, in which most phones keep photos: read by pillow-heif, an extra, imported with the first of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import IO

from PIL import Image

PACKAGE = "pillow-heif"
EXTRA = "heic"


def is_installed() -> bool:
    return find_spec("pillow_heif") is not None


def open_heif(file: IO[bytes]) -> Image.Image:
    """The primary image of a file, not decoded yet; it comes out upright, its boxes `irot` and `imir` applied."""
    from pillow_heif import HeifImageFile, options

    # None of these is looked at, and the images of a job are decoded side by side already.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    options.DECODE_THREADS = 1
    return HeifImageFile(file)
