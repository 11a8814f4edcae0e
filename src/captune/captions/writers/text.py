"""Captions as lines of text."""

import re
from collections.abc import Iterator
from pathlib import Path

from captune.captions.row import CaptionRow
from captune.captions.writers.writer import TextFormatWriter, Values, one_line
from captune.core.errors import CaptuneError
from captune.core.text import escape
from captune.datasets.tables.text import read_text

_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ESCAPED = re.compile(r"\\(?:([\\tnr])|x([0-9a-f]{2})|u([0-9a-f]{4}))")

_MARKS = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


class TextWriter(TextFormatWriter):
    """`image<TAB>caption`, one line per caption; a failed image has `image<TAB><TAB>error`.

    Line breaks and tabs become spaces in captions and escapes (`\\n`) in file names, as do other control characters.
    """

    def values(self) -> Values:
        return _values

    def row(self, row: CaptionRow) -> str:
        # A backslash stays as it is unless something was escaped beside it.
        name = _escaped(row.image) if _CONTROLS.search(row.image) else row.image
        if row.status == "error":
            return f"{name}\t\t{one_line(row.error or '')}\n"
        return "".join(f"{name}\t{one_line(caption.text)}\n" for caption in row.captions)


class PlainTextWriter(TextFormatWriter):
    """Only the best caption of each image, one line per image, in input order.

    A failed image has an empty line, so that lines and images stay in step.
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
    plain = _ESCAPED.sub(lambda found: _MARKS[found[1]] if found[1] else chr(int(found[2] or found[3], 16)), name)
    return plain if _CONTROLS.search(plain) else name


def _escaped(name: str) -> str:
    return re.sub(f"{_CONTROLS.pattern}|\\\\", lambda found: _SHORT.get(found[0]) or escape(found[0]), name)
