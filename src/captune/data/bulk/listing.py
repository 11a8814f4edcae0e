"""Paths of pictures from what a user names: files, folders, patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from captune.core.errors import UsageError
from captune.data.images import PICTURE_SUFFIXES


def find_pictures(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    suffixes: Collection[str] = PICTURE_SUFFIXES,
    what: str = "pictures",
) -> list[str]:
    """Paths of pictures: files as given, folders and patterns opened, each once, in order.

    In a folder, files whose name ends like a picture's (as in `suffixes`) are taken; a file that
    is named outright is taken whatever its name. Raises `UsageError` where nothing is found.
    """
    given = [os.fspath(item) for item in inputs]
    if not given:
        raise UsageError(f"No {what} were given.", "Name files, folders or patterns, or - for a list on stdin.")
    found: dict[str, None] = {}
    for item in given:
        if os.path.isdir(item):
            inside = _walk(item) if recursive else sorted(os.path.join(item, n) for n in os.listdir(item))
            pictures = [p for p in inside if Path(p).suffix.lower() in suffixes and os.path.isfile(p)]
            if not pictures:
                raise UsageError(
                    f"There are no {what} in the folder {item}.",
                    f"Looked for: {' '.join(sorted(suffixes))}.",
                )
            found |= dict.fromkeys(pictures)
        elif glob.has_magic(item) and not os.path.exists(item):
            matched = sorted(p for p in glob.glob(item, recursive=True) if os.path.isfile(p))
            if not matched:
                raise UsageError(f"No file matches {item}.", "Check the pattern and the folder.")
            found |= dict.fromkeys(matched)
        else:
            found[item] = None  # a missing file becomes a row with its reason
    return list(found)


def _walk(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (os.path.join(here, name) for name in sorted(files))
