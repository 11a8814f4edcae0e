"""Parts of messages: numbers of things, and command lines that can be typed as they stand."""

import os
import shlex
from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """A number of things: '1 image', '1,234 images', '0 images'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Iterable[str], joint: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    *first, last = names
    return f"{', '.join(first)} {joint} {last}" if first else last


def command_line(*words: str | os.PathLike[str]) -> str:
    """A command of captune for a shell: what has spaces or signs is quoted."""
    return shlex.join(["captune", *(os.fspath(word) for word in words)])
