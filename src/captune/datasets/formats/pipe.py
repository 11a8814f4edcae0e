"""`image|caption` or `image<TAB>caption` text: everything after the first sign is the caption."""

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.datasets.formats.csv_table import read_table
from captune.datasets.merge import Problems
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side
from captune.datasets.tables.text import first_line
from captune.images.signatures import is_image_name

DESCRIPTION = (
    "text with lines `image|caption` (with or without that header) or `image<TAB>caption`, as `captune caption` prints"
)
RANK = 50
_NAMES = ("*.txt", "*.csv", "*.psv", "*.tsv")
_HEADER = re.compile(r"image(_name|_path)?\s*\|\s*(caption|text|comment)(_text|s)?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\s*\d+\s*\|")


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = find_caption_files(source, _NAMES, _fits)
    return f"{paths[0].name} has lines 'image|caption'" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    paths = [source] if source.is_file() else find_caption_files(source, _NAMES, _fits)
    if not paths:
        raise CaptuneError(f"There is no file with lines 'image|caption' in {source}.", "Name the caption file itself.")
    return read_table(paths[0], _sign(first_line(paths[0]) or "") or "|", problems, side)


def _fits(path: Path) -> bool:
    return _sign(first_line(path) or "") is not None


def _sign(line: str) -> str | None:
    """What separates the image from its caption, or None where the line is of another kind."""
    for sign in ("|", "\t"):
        name, separator, text = line.partition(sign)
        # `x.jpg| 0| A dog` is Flickr30k's table of three columns.
        if separator and (_HEADER.fullmatch(line) or (is_image_name(name.strip()) and not _NUMBER.match(text))):
            return sign
    return None
