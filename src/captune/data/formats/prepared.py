"""captune's own prepared folder, so that it can be split anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats import jsonl
from captune.data.formats.grouping import group
from captune.data.formats.rows import Row, Side
from captune.data.formats.split_words import split_named
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "a folder made by `captune prepare`, to split it anew"
RANK = 100
_SUFFIX = "_split.jsonl"


def sniff(source: Path, images: Path | None = None) -> str | None:
    return "splits.json and *_split.jsonl: made by captune prepare" if _files(source) else None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    return group(rows(source, problems), source, images, problems)


def rows(source: Path, problems: list[Problem] | None, side: Side = "references") -> Iterator[Row]:
    found = _files(source)
    if not found:
        raise CaptuneError(f"{source} was not made by captune prepare.", "Expected splits.json and train_split.jsonl.")
    return _rows(found, problems)


def _files(source: Path) -> list[Path]:
    return sorted(source.glob(f"*{_SUFFIX}")) if (source / "splits.json").is_file() else []


def _rows(paths: list[Path], problems: list[Problem] | None) -> Iterator[Row]:
    for path in paths:
        if path.stat().st_size == 0:
            continue  # a split without pictures
        split = split_named(path.name.removesuffix(_SUFFIX))
        for row in jsonl.rows_of([path], problems):
            yield row._replace(split=split)
