"""JPEG files that were cut off and closed again: decoders fill the rest with grey and say nothing."""

from __future__ import annotations

import io
import re
from typing import IO

from PIL import Image, ImageChops

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FILLER = bytes(range(1, 251)) * 16


def has_missing_rows(image: Image.Image, file: IO[bytes]) -> bool:
    """Whether a loaded JPEG's data ends before its last rows (sequential JPEG only).

    The sign is a last corner of exact middle grey. A picture that really ends in grey is told
    apart by a second decoding with more data put before the end mark: a complete scan does not
    look at it, a short one reads on.
    """
    if image.mode not in ("L", "RGB"):
        return False
    width, height = image.size
    corner = image.crop((max(0, width - 4), height - 1, width, height))
    if set(corner.tobytes()) != {128}:
        return False
    file.seek(0)
    data = file.read()
    scan = _scan(data)
    end = _NEXT_MARKER.search(data, scan) if scan else None
    if end is None or data[end.start() + 1] != 0xD9:
        return False  # several scans, or no end mark at all: Pillow's own check sees to that
    longer = data[: end.start()] + _FILLER + data[end.start() :]
    with Image.open(io.BytesIO(longer), formats=("JPEG",)) as again:
        return ImageChops.difference(image, again).getbbox() is not None


def _scan(data: bytes) -> int:
    """Where the entropy-coded data of the first scan begins; 0 where that cannot be told."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        at += 2 + length
        if marker == 0xDA:
            return at
    return 0
