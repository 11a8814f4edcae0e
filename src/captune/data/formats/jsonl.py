"""JSON Lines, or a JSON list: an object with the picture and its captions in each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.formats.columns import Columns, expected, find_columns
from captune.data.formats.grouping import Row, group, note
from captune.data.formats.places import caption_files, is_image_name
from captune.data.formats.split_words import split_in
from captune.data.formats.table_files import choose
from captune.data.formats.text import first_line, head, load_json, numbered, parse_json
from captune.data.source import Problem, SourceRecord

DESCRIPTION = (
    "JSON Lines or a JSON list of objects: `image`, `caption` or a list `captions`/`references`, perhaps `split`; "
    "or `question` and `answer`/`answers`"
)
RANK = 20
_NAMES = ("*.jsonl", "*.ndjson", "*.json")


def sniff(source: Path, images: Path | None = None) -> str | None:
    found = _files(source)
    return f"{found[0].name} holds objects with a picture and captions" if found else None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    return group(rows(choose(source, _files(source), "JSON files"), problems), source, images, problems)


def rows(paths: list[Path], problems: list[Problem] | None) -> Iterator[Row]:
    """Rows of the files; a file's name gives the split where no key does."""
    for path in paths:
        split = split_in(path.stem) if len(paths) > 1 else None
        whole = (first_line(path) or "").startswith("[") or _is_map(head(path) or "")
        yield from _whole(path, split, problems) if whole else _lines(path, split, problems)


def _files(source: Path) -> list[Path]:
    return caption_files(source, _NAMES, _fits)


def _fits(path: Path) -> bool:
    start = (head(path) or "").lstrip()
    if start.startswith("["):
        first = _first_object(start[1:].lstrip())
    elif _is_map(start):
        return True
    else:
        try:
            first = parse_json(start.split("\n", 1)[0])
        except ValueError:
            return False
    return isinstance(first, dict) and find_columns(first) is not None


def _first_object(text: str) -> Any:
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _is_map(text: str) -> bool:
    """Whether the file is one object {"picture.jpg": caption or captions, …}."""
    text = text.lstrip()
    key = _first_object(text[1:].lstrip()) if text.startswith("{") else None
    return isinstance(key, str) and is_image_name(key)


def _whole(path: Path, split: str | None, problems: list[Problem] | None) -> Iterator[Row]:
    content = load_json(path)
    if isinstance(content, dict):
        content = [{"image": name, "captions": captions} for name, captions in content.items()]
    columns: dict[tuple[str, ...], Columns | None] = {}
    for number, entry in enumerate(content, start=1):
        yield from _row(path, number, entry, split, columns, problems, "entry")


def _lines(path: Path, split: str | None, problems: list[Problem] | None) -> Iterator[Row]:
    columns: dict[tuple[str, ...], Columns | None] = {}
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
        yield from _row(path, number, entry, split, columns, problems, "line")


def _row(
    path: Path,
    number: int,
    entry: Any,
    split: str | None,
    known: dict[tuple[str, ...], Columns | None],
    problems: list[Problem] | None,
    unit: str,
) -> Iterator[Row]:
    where = f"{path.name}, {unit} {number}"
    if not isinstance(entry, Mapping):
        note(problems, where, f"expected an object, found {str(entry)[:60]!r}")
        return
    keys = tuple(entry)
    if keys not in known:
        known[keys] = find_columns(keys)
    columns = known[keys]
    if columns is None:
        note(problems, where, f"expected {expected()}; found the keys {', '.join(keys[:8]) or 'none'}")
        return
    name = entry[columns.image]
    if not isinstance(name, str):
        note(problems, where, f"'{columns.image}' is not a file name but {str(name)[:60]!r}")
        return
    said, asked = columns.split_of(entry) or split, columns.question_of(entry)
    yield Row(path, number, name, columns.texts(entry), said, columns.id_of(entry), unit, asked)
