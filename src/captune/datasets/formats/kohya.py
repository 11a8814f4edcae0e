"""The metadata file of kohya's sd-scripts: one object of JSON, an entry with `caption` and `tags` for each image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.sidecars import captions_in
from captune.datasets.formats.jsonl import first_pair
from captune.datasets.merge import Problems
from captune.datasets.tables.columns import choose, find_columns
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, note
from captune.datasets.tables.text import head, load_json

DESCRIPTION = (
    "the metadata file of kohya's sd-scripts (`meta_cap.json`, `meta_lat.json`): an object with `caption` and `tags` "
    "for each image, by its path or by its name without the ending"
)
RANK = 30
_NAMES = ("meta*.json", "*.json")
# What such an entry may begin with.
_KEYS = ("caption", "tags", "train_resolution")


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _files(source)
    return f"{paths[0].name} has an object with a caption for each image, as kohya's" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    for path in choose(source, _files(source), "metadata files"):
        content = load_json(path)
        if not isinstance(content, dict):
            raise CaptuneError(f"{path}: expected an object with an entry for each image.", "See docs/formats.md.")
        for number, (name, entry) in enumerate(content.items(), start=1):
            caption = entry.get("caption") if isinstance(entry, dict) else None
            if isinstance(caption, str):
                yield Row(path, number, name, captions_in(caption), unit="entry")
            else:
                note(problems, f"{path.name}, entry {number}", f"{name} has {_instead(entry)}")


def _instead(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "no object with a caption"
    return "tags and no caption" if entry.get("tags") and "caption" not in entry else "no text as its caption"


def _files(source: Path) -> list[Path]:
    return find_caption_files(source, _NAMES, lambda path: _fits(path, named=path == source))


def _fits(path: Path, *, named: bool) -> bool:
    """Whether a file is one; in a folder where captions may stand elsewhere, its first entry has to have one."""
    start = (head(path) or "").lstrip()
    name, entry = first_pair(start) if start.startswith("{") else (None, None)
    if not isinstance(name, str) or not isinstance(entry, dict) or find_columns(entry) is not None:
        return False
    return any(key in entry for key in (_KEYS if named else _KEYS[:1])) and all(
        isinstance(entry.get(key, ""), str) for key in _KEYS[:2]
    )
