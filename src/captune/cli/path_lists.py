"""Lists of paths between programs: one a line, or each ended by NUL, which no path can hold."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from captune.cli.terminal import print_line
from captune.core.errors import CaptuneError
from captune.core.text import first_few

_BREAKS = ("\n", "\r")


def print_paths(paths: Sequence[str], *, null: bool = False) -> None:
    """Paths on stdout in the bytes of their names, one a line, or (`null`) each ended by NUL; empty ones stand between.

    Raises `CaptuneError` before anything is printed where a line would not be a path: one that holds a line break.
    """
    broken = [path for path in paths if any(sign in path for sign in _BREAKS)]
    if broken and not null:
        raise CaptuneError(
            f"Paths hold line breaks, and on lines they would be others: {first_few(broken, 3)}.",
            "End each with NUL: captune search … --null, for xargs -0 or captune caption -. Or rename these files.",
        )
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        for path in paths:
            print_line(path)
        return
    sys.stdout.flush()
    end = b"\0" if null else b"\n"
    buffer.write(b"".join(os.fsencode(path) + end for path in paths))
    buffer.flush()


def read_paths(stream: BinaryIO, encoding: str) -> Iterator[str]:
    """The paths of such a list; where there is a NUL, each is ended by one. Empty ones are left out."""
    data = stream.read()
    null = b"\0" in data
    for each in data.split(b"\0" if null else b"\n"):
        path = each if null else each.rstrip(b"\r")
        if path.strip():
            yield path.decode(encoding, "surrogateescape")
