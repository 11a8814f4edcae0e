"""File names that fit: most file systems allow 255 bytes, which are 85 Chinese letters."""

from __future__ import annotations

import hashlib
import os

LONGEST = 255
_DIGEST = 12


def fitted(stem: str, ending: str = "", longest: int = LONGEST) -> str:
    """`stem + ending`; where that has more than `longest` bytes, a digest takes the place of the stem's end.

    Different stems stay different, and a letter is kept whole or left out.
    """
    if len(os.fsencode(stem + ending)) <= longest:
        return stem + ending
    mark = "-" + hashlib.blake2b(os.fsencode(stem)).hexdigest()[:_DIGEST]
    room = longest - len(os.fsencode(mark + ending))
    return os.fsencode(stem)[: max(0, room)].decode("utf-8", "ignore") + mark + ending
