"""Flickr30k's `results.csv`: `image_name| comment_number| comment`."""

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.datasets.merge import Problems
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, note
from captune.datasets.tables.text import first_line, numbered

DESCRIPTION = "Flickr30k's `results.csv`: `image_name| comment_number| comment`"
RANK = 65
_NAMES = ("results.csv", "*.csv", "*.txt")
_HEADER = re.compile(
    r'\s*"?image(_name)?"?\s*([|,])\s*"?comment_number"?\s*\2\s*"?(comment|caption)"?\s*', re.IGNORECASE
)
_NUMBERED = re.compile(r"\s*\S+\.\w+\s*(\|)\s*\d+\s*\|.*")
# Row 19,999 of the real file lacks its second separator: `2199200615.jpg| 4   A dog runs across the grass .`
_BROKEN = re.compile(r"\s*(\d+)\s+(\S.*)")


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = find_caption_files(source, _NAMES, _fits)
    return f"{paths[0].name} has lines 'image_name| comment_number| comment'" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    paths = [source] if source.is_file() else find_caption_files(source, _NAMES, _fits)
    if not paths:
        raise CaptuneError(f"There is no results.csv in {source}.", "Expected 'image_name| comment_number| comment'.")
    return _rows(paths[0], problems)


def _fits(path: Path) -> bool:
    return _separator(first_line(path)) is not None


def _rows(path: Path, problems: Problems) -> Iterator[Row]:
    separator = _separator(first_line(path))
    for index, (number, line) in enumerate(numbered(path)):
        if index == 0:
            if separator is None:
                raise CaptuneError(
                    f"{path}, line {number}: expected the header 'image_name| comment_number| comment', "
                    f"found {line[:80]!r}.",
                    "Is it another format? Leave --format out to have it recognised.",
                )
            if _HEADER.fullmatch(line):
                continue
        name, bar, rest = line.partition(separator or "|")
        position, second, text = rest.partition(separator or "|")
        if not second or not position.strip().isdigit():
            broken = _BROKEN.fullmatch(rest)
            if not bar or broken is None:
                note(
                    problems,
                    f"{path.name}, line {number}",
                    f"expected 'image_name{separator} comment_number{separator} comment', found {line[:60]!r}",
                )
                continue
            text = broken[2]
        text = text.strip()
        if separator == "," and len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        yield Row(path, number, name, (text,))


def _separator(line: str | None) -> str | None:
    if line is None:
        return None
    header = _HEADER.fullmatch(line)
    if header:
        return header[2]
    return "|" if _NUMBERED.fullmatch(line) else None
