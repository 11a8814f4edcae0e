"""COCO's caption files: `images` and `annotations` that point at them."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files.paths import Images
from captune.datasets.merge import Problems, SourceRecord
from captune.datasets.tables.columns import columns_of, image_set, split_from_name
from captune.datasets.tables.files import find_caption_files, list_folder
from captune.datasets.tables.rows import Row, Side, group, id_text, note, plain_id
from captune.datasets.tables.text import head, json_list, load_json

DESCRIPTION = "COCO's `annotations.json` or `captions_*.json`, or the folder with `annotations/` and `train2017/`"
RANK = 70
_NAMES = ("captions_*.json", "*annotations*.json", "*coco*.json", "*.json")
_HINT = "A COCO caption file has 'images' (id, file_name) and 'annotations' (image_id, caption)."
_KEYS = re.compile(r'"(images|annotations|info|licenses|categories|type)"\s*:\s*[\[{"]')


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _files(source)
    return f"{paths[0].name} has COCO's 'images' and 'annotations'" if paths else None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    paths = _paths(source)
    roots = [path.parent.parent if path.parent.name == "annotations" else path.parent for path in paths]
    near = [root / name for root, path in zip(roots, paths, strict=True) for name in _image_folders(path)]
    rows = (row for path in paths for row in _rows(path, problems, "references", every=True))
    return group(rows, source, images, problems, near=[folder for folder in near if folder.is_dir()])


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    return (row for path in _paths(source) for row in _rows(path, problems, side, every=False))


def _paths(source: Path) -> list[Path]:
    return [source] if source.is_file() else _chosen(source, _files(source))


def _files(source: Path) -> list[Path]:
    paths = find_caption_files(source, _NAMES, _fits)
    return [path for path in paths if path.name.startswith("captions_")] or paths


def _fits(path: Path) -> bool:
    start = head(path) or ""
    keys = set(_KEYS.findall(start))
    if not start.lstrip().startswith("{") or '"sentences"' in start:
        return False
    if "images" in keys and ("annotations" in keys or "info" in keys or "licenses" in keys):
        return True
    # A large file: its second list begins behind the first 64 KiB.
    return ("images" in keys and '"file_name"' in start) or ("annotations" in keys and '"caption"' in start)


def _chosen(source: Path, paths: list[Path]) -> list[Path]:
    """One file for each split; of 2014 and 2017 the one whose images are there."""
    if not paths:
        raise CaptuneError(f"There is no COCO caption file in {source}.", "Expected annotations/captions_*.json.")
    by_split: dict[str | None, list[Path]] = {}
    for path in paths:
        by_split.setdefault(split_from_name(path.stem), []).append(path)
    folders = list_folder(source)[1]
    chosen = []
    for paths in by_split.values():
        there = [path for path in paths if any(name in folders for name in _image_folders(path))] or paths
        if len(there) > 1:
            names = ", ".join(path.name for path in there)
            raise CaptuneError(f"{source} holds several COCO files: {names}.", "Name the one that is meant.")
        chosen += there
    return chosen


def _image_folders(path: Path) -> list[str]:
    """`train2017` and `images/train2017` for `captions_train2017.json`."""
    name = image_set(path)
    return [name, f"images/{name}"] if name else []


def _rows(path: Path, problems: Problems, side: Side, *, every: bool) -> Iterator[Row]:
    """Rows of a file; with `every` an image without a caption is a problem."""
    split = split_from_name(path.stem)
    content = load_json(path)
    annotations = json_list(path, content, "annotations", _HINT)
    if annotations and not any("caption" in entry for entry in annotations[:100] if isinstance(entry, dict)):
        raise CaptuneError(
            f"{path}: its annotations have no 'caption'.", "Is it an instances or keypoints file? Use captions_*.json."
        )
    if annotations and "images" not in content:
        named = _named_by_annotations(annotations)
    else:
        named = _named(path, json_list(path, content, "images", _HINT), problems)
    captions: dict[Any, list[str]] = {key: [] for key in named}
    rejected = dict.fromkeys(named, 0)
    key_of = _keys(named)
    for position, entry in enumerate(annotations, start=1):
        where = f"{path.name}, annotation {entry.get('id', position) if isinstance(entry, dict) else position}"
        if not isinstance(entry, dict) or not isinstance(entry.get("caption"), str):
            note(problems, where, "has no 'caption'")
        elif (key := key_of(entry.get("image_id"))) is None:
            note(problems, where, f"points at image {entry.get('image_id')}, which is not in 'images'")
        elif (columns := columns_of(entry)) is not None and columns.is_rejected(entry):
            rejected[key] += 1
        elif not entry["caption"].strip() and side == "references":
            note(problems, where, "the caption is empty")
        else:
            captions[key].append(entry["caption"])
    for key, name in named.items():
        if captions[key] or rejected[key]:
            yield Row(path, key, name, captions[key], split, id_text(key), "image", rejected=rejected[key])
        elif every:
            note(problems, f"{path.name}, image {key}", f"{name} has no caption")


def _keys(named: Iterable[Any]) -> Callable[[Any], Any]:
    """A function from an annotation's image id to the image's, or None.

    Ids that are text, float or have zeros in front on one side only are the same id, as long as no two images become
    one by it.
    """
    known = set(named)
    plain: dict[str, Any] = {}
    twice: set[str] = set()
    for key in named:
        number = plain_id(key) or ""
        if number in plain:
            twice.add(number)
        plain[number] = key

    def key_of(value: Any) -> Any:
        number = plain_id(value)
        if number is None:
            return None
        return value if value in known else plain.get(number) if number not in twice else None

    return key_of


def _named_by_annotations(annotations: list[Any]) -> dict[Any, str]:
    """Where a file has no 'images', their ids are their names."""
    ids = (id_text(entry.get("image_id")) for entry in annotations if isinstance(entry, dict))
    return {id: id for id in ids if id is not None}


def _named(path: Path, images: list[Any], problems: Problems) -> dict[Any, str]:
    """Image ids and file names."""
    named: dict[Any, str] = {}
    for position, entry in enumerate(images, start=1):
        where = f"{path.name}, image {position} of 'images'"
        if not isinstance(entry, dict) or plain_id(entry.get("id")) is None:
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
