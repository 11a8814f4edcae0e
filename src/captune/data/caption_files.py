"""Captions that captune wrote, read back: JSON, JSON Lines, CSV, Parquet, and folders of shards."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.parsed import parse_json
from captune.core.records import Caption
from captune.data.bulk.names import DUPLICATES
from captune.data.formats.parquet import table_rows
from captune.data.formats.text import read_text
from captune.data.source import Problem
from captune.data.writers.row import CaptionRow

EXPECTED = "Expected what captune caption writes as jsonl, json, csv or parquet: image, caption, confidence."


def read_captions(path: str | os.PathLike[str]) -> list[CaptionRow]:
    """A row for each picture of a file, or of all such files of a folder, in order.

    Captions of one picture that stand in several lines (CSV) come as one row. Raises `CaptuneError` with file and
    line for what is no row of captions.
    """
    whole = Path(path)
    files = [whole]
    if whole.is_dir():
        files = sorted(
            each for each in whole.iterdir() if each.suffix in READERS and not each.stem.endswith(".explained")
        )
    if not files:
        raise CaptuneError(f"There are no captions in the folder {path}.", EXPECTED)
    rows: dict[str, CaptionRow] = {}
    for file in files:
        for number, value in enumerate(READERS.get(file.suffix, _json_lines)(file), start=1):
            row = row_of(value, f"{file}, row {number}")
            before = rows.get(row.image)
            captions = row.captions if before is None else before.captions + row.captions
            rows[row.image] = replace(row, captions=captions)
    if not rows:
        raise CaptuneError(f"{path} holds no captions.", EXPECTED)
    return list(rows.values())


def read_duplicates(path: str | os.PathLike[str]) -> dict[str, str]:
    """Of the folder of a job: pictures that look like an earlier one, and which; empty of anything else."""
    listed = Path(path) / DUPLICATES
    if not listed.is_file() or not listed.stat().st_size:  # a job without duplicates lists none
        return {}
    found: dict[str, str] = {}
    for value in _json_lines(listed):
        found.setdefault(value["image"], value["duplicate_of"])
    return found


def row_of(value: Any, where: str) -> CaptionRow:
    """The row that a JSON object, a line of CSV or a row of a table says; raises `CaptuneError` where it is none."""
    if not isinstance(value, Mapping) or not isinstance(value.get("image"), str) or "caption" not in value:
        raise CaptuneError(f"{where}: no picture and caption.", EXPECTED)
    flags = value.get("flags")
    if flags is not None:
        flags = tuple(flags.split() if isinstance(flags, str) else flags)
    if value.get("status") == "error":
        return CaptionRow(value["image"], (), "error", str(value.get("error") or "failed"), "", flags)
    first = {"text": value["caption"], "confidence": value.get("confidence"), "original": value.get("original")}
    try:
        listed = list(value.get("captions") or [first])
        if listed[0]["text"] != first["text"]:  # somebody corrected the one and not the other
            listed[0] = first
        captions = tuple(
            Caption(str(one["text"] or ""), _number(one["confidence"]), original=one.get("original")) for one in listed
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        raise CaptuneError(f"{where}: a confidence that is no number.", EXPECTED) from None
    return CaptionRow(value["image"], captions, "ok", None, "", flags)


def _number(value: Any) -> float:
    """A confidence; one that is not there is no confidence at all."""
    return float(value) if value not in (None, "") else float("nan")


def _json(path: Path) -> Iterator[Any]:
    try:
        found = parse_json(read_text(path))
    except json.JSONDecodeError as error:
        raise CaptuneError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).", EXPECTED) from None
    yield from found if isinstance(found, list) else [found]


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield parse_json(line)
            except json.JSONDecodeError as error:
                raise CaptuneError(f"{path}, line {number}: not valid JSON ({error.msg}).", EXPECTED) from None


def _csv(path: Path) -> Iterator[Any]:
    yield from csv.DictReader(io.StringIO(read_text(path), newline=""))


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    try:
        columns = pq.read_schema(path).names
    except (OSError, ArrowException) as error:
        raise CaptuneError(f"Cannot read {path}: {error}.", EXPECTED) from None
    problems: list[Problem] = []
    yield from (row for _, row in table_rows(path, columns, problems))
    if problems:
        raise CaptuneError(f"Cannot read {problems[0].where}: {problems[0].reason}.", EXPECTED)


READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
