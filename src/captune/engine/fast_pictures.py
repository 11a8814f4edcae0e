"""The quicker way from a JPEG to pixels: nearly the same numbers, about twice as many pictures a second.

libjpeg-turbo without Pillow around it, and torch's 8-bit resize. At up to twice the size of
the square, values differ from the exact way by one or two levels of 255 on 0.4 % of them;
larger pictures are decoded at a fraction of their size, which also moves levels at edges.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from captune.core.errors import CaptuneError
from captune.data.images import ORIENTATION
from captune.data.pixels import passes, resized

HEAD = 65_536


def fast_pixels(source: Any, size: int, max_pixels: int, shorter: int = 0) -> np.ndarray | None:
    """Pixels (3, size, size), uint8, of the path or bytes of an upright, whole JPEG; None for anything else."""
    data = _jpeg(source)
    if data is None:
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB") or width * height > max_pixels or _turned(data):
            return None
        # A fraction that leaves twice the square keeps what the resize needs.
        least = 2 * max(size, shorter)
        levels = simplejpeg.decode_jpeg(data, min_height=least, min_width=least)
    except (ValueError, MemoryError):
        return None  # open_image says what is wrong, or finds that it is good enough
    shape = levels.shape[1], levels.shape[0]
    picture = torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0)
    first, (across, down) = passes(shape, resized(shape, size, shorter))
    if first[1] == down:  # columns first; torch itself begins with the rows
        picture = interpolate(picture, (down, first[0]), mode="bicubic", antialias=True)
    picture = interpolate(picture, (down, across), mode="bicubic", antialias=True)
    left, top = (across - size) // 2, (down - size) // 2
    return picture[0, :, top : top + size, left : left + size].contiguous().numpy()


def check_fast() -> None:
    """Stop where what the quicker way needs is not installed."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        raise CaptuneError("--pixels fast needs simplejpeg.", "pip install 'captune[fast]'") from None


def _jpeg(source: Any) -> bytes | None:
    if isinstance(source, (str, os.PathLike)):
        try:
            with open(source, "rb") as file:
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
