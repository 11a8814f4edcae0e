"""Kaggle's `captions.txt`: lines `image,caption`, quoted or not; everything after the first comma is the caption."""

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.datasets.formats.csv_table import read_table, without_header
from captune.datasets.merge import Problems
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side
from captune.datasets.tables.text import first_line

DESCRIPTION = "Kaggle's `captions.txt`: `image,caption`, one caption per line, with commas"
RANK = 60
_NAMES = ("captions.txt", "caption.txt", "*captions*.txt")
_HEADER = re.compile(r'"?image(_name|_path)?"?\s*,\s*"?caption(_text|s)?"?\s*', re.IGNORECASE)


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = find_caption_files(source, _NAMES, _fits)
    return f"{paths[0].name} has lines 'image,caption'" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    paths = [source] if source.is_file() else find_caption_files(source, _NAMES, _fits)
    if not paths:
        raise CaptuneError(f"There is no captions.txt in {source}.", "Expected lines 'image,caption'.")
    line = first_line(paths[0]) or ""
    if line and not _HEADER.fullmatch(line) and without_header(line) != ",":
        raise CaptuneError(
            f"{paths[0]}, line 1: expected the header 'image,caption', found {line[:80]!r}.",
            "The first line names the columns, each further line is: image.jpg,A caption.",
        )
    return read_table(paths[0], ",", problems, side)


def _fits(path: Path) -> bool:
    line = first_line(path) or ""
    return path.suffix.lower() == ".txt" and (_HEADER.fullmatch(line) is not None or without_header(line) == ",")
