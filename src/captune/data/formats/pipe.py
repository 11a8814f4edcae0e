"""`image|caption` text: everything after the first bar is the caption."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats.grouping import Row, group, note
from captune.data.formats.places import caption_files, is_image_name
from captune.data.formats.text import first_line, numbered
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "text with lines `image|caption`, with or without that header"
RANK = 50
_NAMES = ("*.txt", "*.csv", "*.psv")
_HEADER = re.compile(r"image(_name|_path)?\s*\|\s*(caption|text|comment)(_text|s)?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\s*\d+\s*\|")


def sniff(source: Path, images: Path | None = None) -> str | None:
    for path in caption_files(source, _NAMES):
        if _fits(first_line(path)):
            return f"{path.name} has lines 'image|caption'"
    return None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    for path in caption_files(source, _NAMES):
        if path == source or _fits(first_line(path)):
            return group(_rows(path, problems), source, images, problems)
    raise CaptuneError(f"There is no file with lines 'image|caption' in {source}.", "Name the caption file itself.")


def _rows(path: Path, problems: list[Problem] | None) -> Iterator[Row]:
    for index, (number, line) in enumerate(numbered(path)):
        if index == 0 and _HEADER.fullmatch(line.strip()):
            continue
        name, bar, text = line.partition("|")
        if not bar:
            note(problems, f"{path.name}, line {number}", f"expected 'image|caption', found no '|' in {line[:60]!r}")
            continue
        yield Row(path, number, name, (text,))


def _fits(line: str | None) -> bool:
    if line is None:
        return False
    name, bar, text = line.partition("|")
    # `x.jpg| 0| A dog` is Flickr30k's table of three columns.
    return bool(_HEADER.fullmatch(line) or (bar and is_image_name(name.strip()) and not _NUMBER.match(text)))
