"""How a picture is stored, before it is made upright RGB."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from captune.data.images import open_undecoded, orientation_of
from captune.data.signatures import HEAD_BYTES

TURNS = {
    1: "upright",
    2: "mirrored",
    3: "upside down, turned by 180°",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its side, turned 90° clockwise",
    7: "on its side and mirrored",
    8: "on its side, turned 90° anticlockwise",
}


@dataclass(frozen=True)
class StoredImage:
    """Format and mode by Pillow's names, size in pixels as stored, EXIF orientation (1: upright)."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def turned(self) -> str:
        """How the stored picture lies, and how it is made upright."""
        return TURNS.get(self.orientation, "upright")


def stored_image(source: Any) -> StoredImage:
    """Of a path, the bytes of a file, or a PIL picture; the file is one that opens."""
    if isinstance(source, Image.Image):
        return StoredImage(source.format or "PIL", source.mode, *source.size, 1)
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        image = open_undecoded(file, file.read(HEAD_BYTES))
        size = image.size
        return StoredImage(image.format or "", image.mode, *size, orientation_of(image))
