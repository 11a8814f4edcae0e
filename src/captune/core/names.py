"""File names that fit: most file systems allow 255 bytes, which are 85 Chinese letters."""

from __future__ import annotations

import hashlib
import os
import re

LONGEST = 255
_DIGEST = 12


_DRIVE = re.compile(r"[A-Za-z]:")


def member_name(name: str) -> str:
    """The name of a file in an archive as one below the folder that it is unpacked into: no `..`, no root, no drive.

    Names without such parts stay as they are, but for `./` in front.
    """
    parts = re.split(r"[\\/]", name)
    if name.startswith(("/", "\\")) or os.pardir in parts or _DRIVE.match(name):
        parts = [part for part in parts if part not in ("", os.curdir, os.pardir) and not _DRIVE.fullmatch(part)]
        return "/".join(_DRIVE.sub("", part) for part in parts) or "unnamed"
    return name.removeprefix("./")


def fit_name(stem: str, ending: str = "", longest: int = LONGEST) -> str:
    """`stem + ending`; where that has more than `longest` bytes, a digest takes the place of the stem's end.

    Different stems stay different, and a letter is kept whole or left out.
    """
    if len(os.fsencode(stem + ending)) <= longest:
        return stem + ending
    mark = "-" + hashlib.blake2b(os.fsencode(stem)).hexdigest()[:_DIGEST]
    room = longest - len(os.fsencode(mark + ending))
    return os.fsencode(stem)[: max(0, room)].decode("utf-8", "ignore") + mark + ending


def shortened(path: str | os.PathLike[str], most: int = 160) -> str:
    """A path as it stands in a message: of a very long one the beginning."""
    text = os.fspath(path)
    return text if len(text) <= most else f"{text[: most // 2]}…"
