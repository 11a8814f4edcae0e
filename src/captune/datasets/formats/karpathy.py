"""Karpathy's split files: `dataset_flickr8k.json`, `dataset_flickr30k.json`, `dataset_coco.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.datasets.merge import Problems
from captune.datasets.tables.columns import choose, normalize_split
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, note
from captune.datasets.tables.text import head, json_list, load_json

DESCRIPTION = "Karpathy's `dataset_flickr8k.json`, `dataset_flickr30k.json` or `dataset_coco.json`, splits included"
RANK = 80
_NAMES = ("*.json",)


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = find_caption_files(source, _NAMES, fits)
    return f"{paths[0].name} has Karpathy's 'images' with 'sentences' and 'split'" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    path = choose(source, find_caption_files(source, _NAMES, fits), "Karpathy files")[0]
    return _rows(path, problems)


def entries(path: Path) -> list[Any]:
    """The list `images`. Raises `CaptuneError` where there is none."""
    return json_list(path, load_json(path), "images", "Is it Karpathy's dataset_*.json?")


def fits(path: Path) -> bool:
    """Whether the head of the file is that of a Karpathy file."""
    start = head(path) or ""
    return start.lstrip().startswith("{") and '"images"' in start and '"sentences"' in start


def _rows(path: Path, problems: Problems) -> Iterator[Row]:
    for position, entry in enumerate(entries(path), start=1):
        where = f"{path.name}, image {position}"
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            note(problems, where, "has no 'filename'")
            continue
        sentences = entry.get("sentences")
        captions = [text for s in (sentences if isinstance(sentences, list) else ()) if (text := _sentence(s))]
        name = f"{entry['filepath']}/{entry['filename']}" if entry.get("filepath") else entry["filename"]
        identity = str(entry["cocoid"]) if "cocoid" in entry else entry["filename"]
        yield Row(path, position, name, captions, normalize_split(str(entry.get("split") or "")), identity, "image")


def _sentence(entry: Any) -> str:
    if not isinstance(entry, dict):
        return ""
    raw, tokens = entry.get("raw"), entry.get("tokens")
    return raw if isinstance(raw, str) else " ".join(map(str, tokens if isinstance(tokens, list) else ()))
