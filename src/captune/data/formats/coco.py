"""COCO's caption files: `images` and `annotations` that point at them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.formats.grouping import Row, group, note
from captune.data.formats.places import caption_files, listing
from captune.data.formats.split_words import split_in
from captune.data.formats.text import head, load_json
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "COCO's `annotations.json` or `captions_*.json`, or the folder with `annotations/` and `train2017/`"
RANK = 70
_NAMES = ("captions_*.json", "*annotations*.json", "*coco*.json", "*.json")
_KEYS = re.compile(r'"(images|annotations|info|licenses|categories|type)"\s*:\s*[\[{"]')


def sniff(source: Path, images: Path | None = None) -> str | None:
    found = _files(source)
    return f"{found[0].name} has COCO's 'images' and 'annotations'" if found else None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    paths = [source] if source.is_file() else _chosen(source, _files(source))
    roots = [path.parent.parent if path.parent.name == "annotations" else path.parent for path in paths]
    near = [root / name for root, path in zip(roots, paths, strict=True) for name in _picture_folders(path)]
    return group(_all_rows(paths, problems), source, images, problems, near=[p for p in near if p.is_dir()] + roots)


def _files(source: Path) -> list[Path]:
    found = caption_files(source, _NAMES, _fits)
    return [path for path in found if path.name.startswith("captions_")] or found


def _fits(path: Path) -> bool:
    start = head(path) or ""
    keys = set(_KEYS.findall(start))
    if not start.lstrip().startswith("{") or '"sentences"' in start:
        return False
    if "images" in keys and ("annotations" in keys or "info" in keys or "licenses" in keys):
        return True
    # A large file: its second list begins behind the first 64 KiB.
    return ("images" in keys and '"file_name"' in start) or ("annotations" in keys and '"caption"' in start)


def _chosen(source: Path, found: list[Path]) -> list[Path]:
    """One file for each split; of 2014 and 2017 the one whose pictures are there."""
    if not found:
        raise CaptuneError(f"There is no COCO caption file in {source}.", "Expected annotations/captions_*.json.")
    by_split: dict[str | None, list[Path]] = {}
    for path in found:
        by_split.setdefault(split_in(path.stem), []).append(path)
    folders = listing(source)[1]
    chosen = []
    for paths in by_split.values():
        there = [path for path in paths if any(name in folders for name in _picture_folders(path))] or paths
        if len(there) > 1:
            names = ", ".join(path.name for path in there)
            raise CaptuneError(f"{source} holds several COCO files: {names}.", "Name the one that is meant.")
        chosen += there
    return chosen


def _picture_folders(path: Path) -> list[str]:
    """`train2017` for `captions_train2017.json`."""
    match = re.search(r"(train|val|test)\d*", path.stem)
    return [match[0], f"images/{match[0]}"] if match else []


def _all_rows(paths: list[Path], problems: list[Problem] | None) -> Iterator[Row]:
    for path in paths:
        yield from _rows(path, split_in(path.stem), problems)


def _rows(path: Path, split: str | None, problems: list[Problem] | None) -> Iterator[Row]:
    content = load_json(path)
    images, annotations = (_list(path, content, key) for key in ("images", "annotations"))
    if annotations and not any("caption" in entry for entry in annotations[:100] if isinstance(entry, dict)):
        raise CaptuneError(
            f"{path}: its annotations have no 'caption'.", "Is it an instances or keypoints file? Use captions_*.json."
        )
    named = _named(path, images, problems)
    captions: dict[Any, list[str]] = {key: [] for key in named}
    for position, entry in enumerate(annotations, start=1):
        where = f"{path.name}, annotation {entry.get('id', position) if isinstance(entry, dict) else position}"
        if not isinstance(entry, dict) or not isinstance(entry.get("caption"), str):
            note(problems, where, "has no 'caption'")
        elif not isinstance(key := entry.get("image_id"), (int, str)) or key not in captions:
            note(problems, where, f"points at image {key}, which is not in 'images'")
        elif not entry["caption"].strip():
            note(problems, where, "the caption is empty")
        else:
            captions[key].append(entry["caption"])
    for key, name in named.items():
        if captions[key]:
            yield Row(path, key, name, captions[key], split, str(key), "image")
        else:
            note(problems, f"{path.name}, image {key}", f"{name} has no caption")


def _list(path: Path, content: Any, key: str) -> list[Any]:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list):
        found = ", ".join(list(content)[:8]) if isinstance(content, dict) else type(content).__name__
        raise CaptuneError(
            f"{path}: expected a list '{key}', found {found}.",
            "A COCO caption file has 'images' (id, file_name) and 'annotations' (image_id, caption).",
        )
    return value


def _named(path: Path, images: list[Any], problems: list[Problem] | None) -> dict[Any, str]:
    """Image ids and file names."""
    named: dict[Any, str] = {}
    for position, entry in enumerate(images, start=1):
        where = f"{path.name}, image {position} of 'images'"
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), (int, str)):
            note(problems, where, "has no 'id'")
            continue
        name = entry.get("file_name") or str(entry.get("coco_url") or "").rpartition("/")[2]
        if not isinstance(name, str) or not name:
            note(problems, where, "has no 'file_name'")
        elif named.get(entry["id"], name) != name:
            note(problems, where, f"id {entry['id']} is {name} here and {named[entry['id']]} before")
        else:
            named[entry["id"]] = name
    return named
