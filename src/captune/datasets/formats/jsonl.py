"""JSON Lines, a JSON list of objects, or one JSON object by image: an image and its captions in each."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files.limits import parse_json
from captune.datasets.merge import Problems
from captune.datasets.tables.columns import choose, columns_of, expected, find_columns, split_from_name
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, note
from captune.datasets.tables.text import head, load_json, numbered
from captune.images.signatures import is_image_name

DESCRIPTION = (
    "JSON Lines or a JSON list of objects: `image`, `caption` or a list `captions`/`references`, perhaps `split`; "
    "or `question` and `answer`/`answers`; or one object, captions by image"
)
RANK = 20
_NAMES = ("*.jsonl", "*.ndjson", "*.json")
# A file of one object that holds its rows in a list.
_LISTS = ("data", "images", "annotations", "results", "predictions", "samples", "captions", "rows", "items")


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _files(source)
    return f"{paths[0].name} holds objects with an image and captions" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    return rows_of(choose(source, _files(source), "JSON files"), problems, side)


def rows_of(paths: list[Path], problems: Problems, side: Side = "references") -> Iterator[Row]:
    """Rows of the files; a file's name gives the split where no key does."""
    for path in paths:
        split = split_from_name(path.stem) if len(paths) > 1 else None
        read_one = _whole if _is_whole(head(path) or "") else _lines
        yield from read_one(path, split, problems, side)


def entries(path: Path) -> Iterator[Any]:
    """The objects of one file, with all their keys; raises `CaptuneError` for what is not JSON."""
    if _is_whole(head(path) or ""):
        content = load_json(path)
        yield from content if isinstance(content, list) else [content]
        return
    for number, line in numbered(path):
        try:
            yield parse_json(line)
        except json.JSONDecodeError as error:
            raise CaptuneError(f"{path}, line {number}: not valid JSON ({error.msg}).", "Mend the line.") from None


def _files(source: Path) -> list[Path]:
    return find_caption_files(source, _NAMES, lambda path: _fits(path, path == source))


def _fits(path: Path, named: bool) -> bool:
    """Whether a file has rows of captions; only one that the user named may have ids in place of file names."""
    start = (head(path) or "").lstrip()
    if start.startswith("["):
        return _is_row(_first_value(start[1:].lstrip()), named)
    if not start.startswith("{"):
        return False
    key, value = first_pair(start)
    inside = start[1:].partition(":")[2].lstrip()
    if key in _LISTS and inside.startswith("["):
        return _is_row(_first_value(inside[1:].lstrip()), named)
    first = _first_value(start)
    if isinstance(first, dict) and find_columns(first) is not None:
        return _is_row(first, named)
    return isinstance(key, str) and _is_entry(key, value, named)


def _is_row(value: Any, named: bool) -> bool:
    columns = find_columns(value) if isinstance(value, dict) else None
    if columns is None:
        return False
    return named or not columns.by_id or is_image_name(str(value[columns.image]))


def _is_entry(key: str, value: Any, named: bool) -> bool:
    """Whether a key and its value are an image and its captions, as far as the head of the file shows."""
    if is_image_name(key):
        return True
    if isinstance(value, dict):
        return "caption" in value or "captions" in value
    if isinstance(value, list):
        return named and bool(value) and isinstance(value[0], str | dict)
    return named and isinstance(value, str)


def _is_whole(start: str) -> bool:
    """Whether the file is one value of JSON, not a row on each line."""
    first, _, more = start.strip().partition("\n")
    if first.startswith("["):
        return True
    try:
        row = parse_json(first)
    except ValueError:
        return first.startswith("{")
    return not more.strip() and isinstance(row, dict) and find_columns(row) is None


def _first_value(text: str) -> Any:
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def first_pair(text: str) -> tuple[Any, Any]:
    """The first key of an object and its value, None where they are cut off."""
    inside = text[1:].lstrip()
    try:
        key, end = json.JSONDecoder().raw_decode(inside)
    except (ValueError, RecursionError):
        return None, None
    return key, _first_value(inside[end:].lstrip().removeprefix(":").lstrip())


def _whole(path: Path, split: str | None, problems: Problems, side: Side) -> Iterator[Row]:
    content = load_json(path)
    if isinstance(content, dict) and find_columns(content) is None:
        name = next((key for key in _LISTS if isinstance(content.get(key), list)), None)
        if name is None:
            yield from _by_image(path, content, split)
            return
        content = content[name]
    for number, entry in enumerate(content if isinstance(content, list) else [content], start=1):
        yield from _row(path, number, entry, split, problems, "entry", side)


def _by_image(path: Path, content: Mapping[str, Any], split: str | None) -> Iterator[Row]:
    columns = find_columns(("image", "captions"))
    assert columns is not None
    for number, (name, captions) in enumerate(content.items(), start=1):
        if isinstance(captions, Mapping) and "captions" in captions:
            captions = captions["captions"]
        yield columns.row(path, number, {"image": name, "captions": captions}, split, "entry")


def _lines(path: Path, split: str | None, problems: Problems, side: Side) -> Iterator[Row]:
    for number, line in numbered(path):
        try:
            entry = parse_json(line)
        except json.JSONDecodeError as error:
            if number == 1 and not line.lstrip().startswith("{"):
                raise CaptuneError(
                    f"{path}, line 1: expected a JSON object on every line, found {line[:60]!r}.",
                    'For example: {"image": "a.jpg", "captions": ["A dog.", "A brown dog."]}',
                ) from None
            note(problems, f"{path.name}, line {number}", f"not valid JSON ({error.msg}, column {error.colno})")
            continue
        yield from _row(path, number, entry, split, problems, "line", side)


def _row(
    path: Path, number: int, entry: Any, split: str | None, problems: Problems, unit: str, side: Side
) -> Iterator[Row]:
    where = f"{path.name}, {unit} {number}"
    if not isinstance(entry, Mapping):
        note(problems, where, f"expected an object, found {str(entry)[:60]!r}")
        return
    keys = tuple(entry)
    columns = columns_of(entry, side)
    if columns is not None:
        yield columns.row(path, number, entry, split, unit)
    elif len(keys) == 1 and is_image_name(keys[0]):
        yield from (row._replace(line=number, unit=unit) for row in _by_image(path, entry, split))
    else:
        note(problems, where, f"found the keys {', '.join(keys[:8]) or 'none'}; expected {expected()}")
