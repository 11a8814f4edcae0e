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
    found = caption_files(source, _NAMES, _fits)
    return f"{found[0].name} has lines 'image|caption'" if found else None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    found = [source] if source.is_file() else caption_files(source, _NAMES, _fits)
    if not found:
        raise CaptuneError(f"There is no file with lines 'image|caption' in {source}.", "Name the caption file itself.")
    return group(_rows(found[0], problems), source, images, problems)


def _rows(path: Path, problems: list[Problem] | None) -> Iterator[Row]:
    for index, (number, line) in enumerate(numbered(path)):
        if index == 0 and _HEADER.fullmatch(line.strip()):
            continue
        name, bar, text = line.partition("|")
        if not bar:
            note(problems, f"{path.name}, line {number}", f"expected 'image|caption', found no '|' in {line[:60]!r}")
            continue
        yield Row(path, number, name, (text,))


def _fits(path: Path) -> bool:
    line = first_line(path) or ""
    name, bar, text = line.partition("|")
    # `x.jpg| 0| A dog` is Flickr30k's table of three columns.
    return bool(_HEADER.fullmatch(line) or (bar and is_image_name(name.strip()) and not _NUMBER.match(text)))
