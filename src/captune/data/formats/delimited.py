"""Tables of text with a separator, as people really write them: quotes that are never closed lose no rows."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache

from captune.data.formats.places import is_image_name

_LONGEST_FIELD = 200  # lines: a quote that is never closed must not swallow the rest of the file
# In these a program quotes only what has to be quoted, so that "Stop" is what the sign says.
_LITERAL_QUOTES = ("\t", "|")
_LONGEST_NAME = 300


def table_rows(
    lines: Iterable[tuple[int, str]], delimiter: str, *, width: int, image: int
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table behind its header, each with the number of its first line.

    `lines` have their ends. `width` is the number of columns, `image` the place of the image's name. A quoted field
    may go over several lines; where a line in it starts a row itself, the quote was a sign of the text and the field
    ends with its own line. Other quotes that RFC 4180 does not know stay in the text.
    """
    source = iter(lines)
    waiting: deque[tuple[int, str]] = deque()
    names = _Names()
    while waiting or (following := next(source, None)) is not None:
        number, line = waiting.popleft() if waiting else following  # type: ignore[misc]
        if not line.strip():
            continue
        fields, opened = split_fields(line.rstrip("\r\n"), delimiter)
        if opened is not None:
            whole = len(fields) >= width and names.fit(fields[image])
            taken: list[tuple[int, str]] = []
            text = line
            while len(taken) < _LONGEST_FIELD:
                after = waiting.popleft() if waiting else next(source, None)
                if after is None:
                    break
                taken.append(after)
                if (whole or image < opened) and _starts_row(after[1], delimiter, width, image, names):
                    break
                text += after[1]
                if '"' in after[1]:
                    joined, still = split_fields(text.rstrip("\r\n"), delimiter)
                    if still is None:
                        fields, taken = joined, []
                        break
            waiting.extendleft(reversed(taken))
        if len(fields) > image:
            names.add(fields[image])
        yield number, fields


def split_fields(line: str, delimiter: str) -> tuple[list[str], int | None]:
    """The fields of a line, and the first whose quote is not closed in it (None: all are)."""
    if '"' not in line:
        return line.split(delimiter), None
    quoted = _quoted(delimiter)
    found: list[tuple[str, str | None]] = []  # as it stands, and what is in its quotes
    opened, position = None, 0
    while True:
        match = quoted.match(line, position)
        if match is not None:
            end, inner = match.end(), match[1]
        else:
            end, inner = line.find(delimiter, position), None
            end = len(line) if end < 0 else end
            rest = line[position:]
            if opened is None and rest.lstrip(" ").startswith('"') and rest.count('"') % 2:
                opened = len(found)
        found.append((line[position:end], inner))
        if end >= len(line):
            break
        position = end + 1
    literal = delimiter in _LITERAL_QUOTES and not all(inner is not None for _, inner in found)
    return [_unquoted(raw, inner, literal, delimiter) for raw, inner in found], opened


def _unquoted(raw: str, inner: str | None, literal: bool, delimiter: str) -> str:
    if inner is None or (literal and not any(sign in inner for sign in (delimiter, '"', "\n", "\r"))):
        return raw
    return inner.replace('""', '"')


@lru_cache
def _quoted(delimiter: str) -> re.Pattern[str]:
    """A field in quotes up to the separator or the end; two quotes inside are one."""
    return re.compile(rf' *"([^"]*(?:""[^"]*)*)"[ \r\n]*(?={re.escape(delimiter)}|\Z)')


def _starts_row(line: str, delimiter: str, width: int, image: int, names: _Names) -> bool:
    fields, _ = split_fields(line.rstrip("\r\n"), delimiter)
    return len(fields) >= width and names.fit(fields[image])


class _Names:
    """What the names of images look like in a file: file names of images, or ids without white space."""

    def __init__(self) -> None:
        self._files: bool | None = None

    def add(self, name: str) -> None:
        if self._files is None and name.strip():
            self._files = is_image_name(name.strip())

    def fit(self, name: str) -> bool:
        name = name.strip().strip('"')
        if is_image_name(name):
            return len(name) < _LONGEST_NAME
        return not self._files and any(map(str.isdigit, name)) and not any(map(str.isspace, name))
