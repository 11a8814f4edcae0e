"""Text on images: a font, and lines that fit."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

_NO_SIGN = "\U0010ffff"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font_of(size: int, *, bold: bool = False) -> Font:
    """DejaVu Sans, which comes with matplotlib and knows most alphabets, else Pillow's own."""
    found = find_spec("matplotlib")
    if found is not None and found.origin:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def lacks(font: Font, text: str) -> bool:
    """Whether the font draws the same for a sign of the text as for a sign that is none."""
    return any(_is_lacking(font, sign) for sign in set(text) if sign.isprintable() and not sign.isascii())


@cache
def _is_lacking(font: Font, sign: str) -> bool:
    return bytes(font.getmask(sign)) == bytes(font.getmask(_NO_SIGN))


def wrapped(text: str, font: Font, room: int, most: int | None = None) -> list[str]:
    """Lines of at most `room` pixels, at least one; what has no room on `most` lines gives way to an ellipsis."""
    lines = [""]
    for part in (part for word in text.split() for part in _parts(word, font, room)):
        longer = f"{lines[-1]} {part}".strip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(part)
        else:
            lines[-1] = longer
        if most is not None and len(lines) > most:
            last = lines[most - 1]
            while last and font.getlength(f"{last}…") > room:
                last = last[:-1]
            return [*lines[: most - 1], f"{last.rstrip()}…"]
    return lines


def _parts(word: str, font: Font, room: int) -> list[str]:
    """A word, cut where it is longer than a line, as one of a script without spaces may be."""
    parts = []
    while len(word) > 1 and font.getlength(word) > room:
        fitting = next(end for end in range(1, len(word)) if font.getlength(word[: end + 1]) > room)
        parts.append(word[:fitting])
        word = word[fitting:]
    return [*parts, word]
