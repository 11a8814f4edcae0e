"""Captions as lines of text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats.text import read_text
from captune.data.writers.row import CaptionRow
from captune.data.writers.standing import Values
from captune.data.writers.writer import TextFormatWriter, one_line

_ESCAPES = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}

_MARKS = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


class TextWriter(TextFormatWriter):
    """`image<TAB>caption`, a line for each caption; a failed picture has `image<TAB><TAB>error`.

    Line breaks and tabs become spaces in captions and escapes (`\\n`) in file names.
    """

    def values(self) -> Values:
        return _values

    def row(self, row: CaptionRow) -> str:
        # A backslash stays as it is unless something was escaped beside it.
        name = row.image.translate(_ESCAPES) if any(mark in row.image for mark in "\t\n\r") else row.image
        if row.status == "error":
            return f"{name}\t\t{one_line(row.error or '')}\n"
        return "".join(f"{name}\t{one_line(caption.text)}\n" for caption in row.captions)


class PlainTextWriter(TextFormatWriter):
    """The best caption of each picture alone, one line a picture in the order given.

    A failed picture has an empty line, so that lines and pictures stay in step.
    """

    def values(self) -> None:
        """Lines without names cannot be joined with others."""

    def row(self, row: CaptionRow) -> str:
        return f"{one_line(row.captions[0].text) if row.captions else ''}\n"


def _values(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a file of `TextWriter`; raises `CaptuneError` for a line that is none."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, tab, rest = line.partition("\t")
        if line.strip() and not tab:
            raise CaptuneError(f"line {number} has no tab between image and caption.")
        if rest.startswith("\t"):
            yield {"image": name, "caption": "", "status": "error", "error": rest[1:]}
        elif tab:
            yield {"image": _unescaped(name), "caption": rest}


def _unescaped(name: str) -> str:
    """A name in which line breaks and tabs were escaped; others had their backslashes as they are."""
    plain = re.sub(r"\\([\\tnr])", lambda found: _MARKS[found[1]], name)
    return plain if any(mark in plain for mark in "\t\n\r") else name
