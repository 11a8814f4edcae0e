"""The quicker way from a JPEG to its levels: libjpeg-turbo without Pillow around it.

At up to twice the size of the square, values differ from the exact way by one or two levels of
255 on 0.4 % of them; larger pictures are decoded at a fraction of their size, which also moves
levels at edges.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image

from captune.core.errors import CaptuneError
from captune.core.files import open_regular
from captune.data.images import ORIENTATION
from captune.data.jpeg import has_too_many_scans

HEAD = 65_536


def decode_fast(source: Any, least: int, max_pixels: int) -> np.ndarray | None:
    """Levels (height, width, 3), uint8, of the path or bytes of an upright, whole JPEG; None for anything else.

    Both sides keep at least `least` pixels where the picture has them.
    """
    data = _jpeg(source)
    if data is None:
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB") or width * height > max_pixels or _turned(data):
            return None
        if has_too_many_scans(io.BytesIO(data)):
            return None
        return simplejpeg.decode_jpeg(data, min_height=least, min_width=least)
    except (ValueError, MemoryError):
        return None  # open_image says what is wrong, or finds that it is good enough


def check_fast_decoder() -> None:
    """Stop where what the quicker way needs is not installed."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        raise CaptuneError("--preprocessing fast needs simplejpeg.", "pip install 'captune[fast]'") from None


def _jpeg(source: Any) -> bytes | None:
    if isinstance(source, (str, os.PathLike)):
        try:
            with open_regular(source) as file:
                if file.read(3) != b"\xff\xd8\xff":
                    return None
                file.seek(0)
                return file.read()
        except (OSError, ValueError):
            return None
    return source if isinstance(source, bytes) and source.startswith(b"\xff\xd8\xff") else None


def _turned(data: bytes) -> bool:
    """Whether EXIF asks for another orientation than the stored one."""
    if data.find(b"Exif\0\0", 0, HEAD) < 0:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError):
        return True
