"""The `token` files of Flickr8k and Flickr30k: `name.jpg#0<TAB>caption`."""

import re
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.datasets.merge import Problems
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, note
from captune.datasets.tables.text import first_line, numbered

DESCRIPTION = "Flickr8k's and Flickr30k's `token` files: `name.jpg#0<TAB>caption`"
RANK = 55
_NAMES = ("*token*", "*.token", "*.txt")
# Names stay as they are, Flickr8k's one `….jpg.1` too: it is an image of its own with one caption.
_LINE = re.compile(r"(?P<name>[^\t]+?)#\d+[ \t]*\t(?P<caption>.*)")


def sniff(source: Path, images: Path | None = None) -> str | None:
    path = _token_file(source)
    return f"{path.name} has lines 'name.jpg#0<TAB>caption'" if path else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    path = source if source.is_file() else _token_file(source)
    if path is None:
        raise CaptuneError(f"There is no token file in {source}.", "Expected lines 'name.jpg#0<TAB>caption'.")
    return _rows(path, problems)


def _token_file(source: Path) -> Path | None:
    # The lemmatised copy lies beside the original: it is not what people said.
    paths = find_caption_files(source, _NAMES, lambda path: _LINE.fullmatch(first_line(path) or "") is not None)
    return min(paths, key=lambda path: ("lemma" in path.name.lower(), path.name), default=None)


def _rows(path: Path, problems: Problems) -> Iterator[Row]:
    for number, line in numbered(path):
        match = _LINE.fullmatch(line)
        if match is None:
            note(problems, f"{path.name}, line {number}", f"expected 'name.jpg#0<TAB>caption', found {line[:60]!r}")
            continue
        yield Row(path, number, match["name"], (match["caption"],))
