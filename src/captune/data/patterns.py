"""Names that stand for several files: `photos/*.jpg`, `{000..012}.tar`.

What is there under its own name is meant by it, whatever signs it holds: `Photos [2021]/*.jpg` looks into that folder.
Braces without a comma or a range, and brackets without a range beside no other sign, are letters of a name.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import groupby

from captune.data.links import Visits

_BRACES = re.compile(r"\{([^{}]*,[^{}]*|\d+\.\.\d+)\}")
_SEVERAL = re.compile(r"[*?]|\[[!^][^\]]+\]|\[[^\]]*[^\[\]]-[^\]]+\]")


class Listed(str):
    """A name out of a list, which is never a pattern."""


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files by its signs; never where a file of this name is there."""
    if isinstance(name, Listed):
        return False
    return bool(_SEVERAL.search(name) or _BRACES.search(name)) and not os.path.lexists(name)


def has_wildcards(name: str) -> bool:
    """Whether a name without braces stands for several files."""
    return bool(_SEVERAL.search(name))


def expand(pattern: str) -> list[str]:
    """Shell braces: `{000..012}` and `{a,b}`; those of a folder that is there are letters of its name."""
    for match in _BRACES.finditer(pattern):
        end = pattern.find("/", match.end())
        if end > 0 and os.path.isdir(pattern[:end]):
            continue
        first, dots, last = match[1].partition("..")
        if dots:
            choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        else:
            choices = match[1].split(",")
        around = pattern[: match.start()], pattern[match.end() :]
        return list(itertools.chain.from_iterable(expand(f"{around[0]}{choice}{around[1]}") for choice in choices))
    return [pattern]


def matches(pattern: str, visits: Visits | None = None) -> list[str]:
    """The files that a pattern without braces stands for, sorted; `**` is any number of folders, none hidden."""
    start, parts = (os.sep, pattern[1:].split("/")) if pattern.startswith("/") else ("", pattern.split("/"))
    named = [part for part in parts if part]
    # Several ** in a row mean what one does, and would look into each folder again and again.
    once = [part for part, several in groupby(named) for _ in (several if part != "**" else "1")]
    found = _below(start, once, visits or Visits(pattern))
    return sorted({path for path in found if os.path.isfile(path)})


def _below(folder: str, parts: list[str], visits: Visits) -> Iterator[str]:
    """What the parts of a pattern stand for in a folder."""
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    here = os.path.join(folder, first)
    if os.path.lexists(here):
        yield from _below(here, rest, visits)
    elif first == "**":
        _enter(folder, len(parts), visits)
        yield from _below(folder, rest, visits)
        for name in _names(folder):
            if os.path.isdir(inner := os.path.join(folder, name)):
                yield from _below(inner, parts, visits)
            elif not rest:
                yield inner
    else:
        for name in _names(folder, hidden=first.startswith(".")):
            if fnmatchcase(name, first):
                yield from _below(os.path.join(folder, name), rest, visits)


def _enter(folder: str, left: int, visits: Visits) -> None:
    """Count a visit for a `**` with so many parts of the pattern left."""
    with suppress(OSError):  # no folder, or a closed one: nothing in it matches
        found = os.stat(folder or ".")
        visits.enter((found.st_dev, found.st_ino, left), folder or ".")


def _names(folder: str, *, hidden: bool = False) -> list[str]:
    try:
        return [name for name in os.listdir(folder or ".") if hidden or not name.startswith(".")]
    except OSError:  # no folder, or a closed one: nothing in it matches
        return []
