"""Kaggle's `captions.txt`: a line `image,caption` for each caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats.grouping import Row, group, note
from captune.data.formats.places import caption_files, is_image_name
from captune.data.formats.text import first_line, numbered, unquoted
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "Kaggle's `captions.txt`: `image,caption`, one caption a line, commas kept whole"
RANK = 60
_NAMES = ("captions.txt", "caption.txt", "*captions*.txt")
_HEADER = re.compile(r'"?image(_name|_path)?"?\s*,\s*"?caption(_text|s)?"?\s*', re.IGNORECASE)
_QUOTED_NAME = re.compile(r'"((?:[^"]|"")*)"\s*,(.*)', re.DOTALL)


def sniff(source: Path, images: Path | None = None) -> str | None:
    found = caption_files(source, _NAMES, _fits)
    return f"{found[0].name} has lines 'image,caption'" if found else None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    found = [source] if source.is_file() else caption_files(source, _NAMES, _fits)
    if not found:
        raise CaptuneError(f"There is no captions.txt in {source}.", "Expected lines 'image,caption'.")
    return group(_rows(found[0], problems), source, images, problems)


def _fits(path: Path) -> bool:
    line = first_line(path) or ""
    return path.suffix.lower() == ".txt" and (_HEADER.fullmatch(line) is not None or _is_row(line))


def _rows(path: Path, problems: list[Problem] | None) -> Iterator[Row]:
    """Rows of a file that is CSV-quoted, or not quoted at all: the caption is all after the first comma."""
    source = numbered(path)
    number, line = next(source, (1, ""))
    if not _HEADER.fullmatch(line.strip()):
        if not _is_row(line):
            raise CaptuneError(
                f"{path}, line {number}: expected the header 'image,caption', found {line[:80]!r}.",
                "The first line names the columns, each further line is: picture.jpg,A caption.",
            )
        yield from _row(path, number, line, problems)
    opened: tuple[int, str] | None = None  # a quoted caption whose closing quote is on a later line
    for number, line in source:
        if opened is not None and not _is_row(line):
            opened = (opened[0], f"{opened[1]} {line}")
            if _closed(opened[1]):
                yield from _row(path, *opened, problems)
                opened = None
            continue
        if opened is not None:
            yield from _row(path, *opened, problems)
            opened = None
        if '"' in line and not _closed(line):
            opened = (number, line)
        else:
            yield from _row(path, number, line, problems)
    if opened is not None:
        yield from _row(path, *opened, problems)


def _row(path: Path, number: int, line: str, problems: list[Problem] | None) -> Iterator[Row]:
    quoted_name = _QUOTED_NAME.fullmatch(line) if line.startswith('"') else None
    name, comma, text = (quoted_name[1].replace('""', '"'), ",", quoted_name[2]) if quoted_name else line.partition(",")
    if not comma:
        note(problems, f"{path.name}, line {number}", f"expected 'image,caption', found no comma in {line[:60]!r}")
        return
    inner = unquoted(text)
    yield Row(path, number, name, (text if inner is None else inner,))


def _is_row(line: str) -> bool:
    """Whether a line starts a row: a picture's name and a comma."""
    name, comma, _ = line.partition(",")
    return bool(comma) and is_image_name(name.strip().strip('"'))


def _closed(line: str) -> bool:
    """Whether the caption is not opened by a quote, or closed again."""
    quoted_name = _QUOTED_NAME.fullmatch(line) if line.startswith('"') else None
    text = quoted_name[2] if quoted_name else line.partition(",")[2]
    return not text.lstrip().startswith('"') or text.count('"') % 2 == 0
