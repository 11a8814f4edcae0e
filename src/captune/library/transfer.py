"""A library as JSON Lines, and back without loss."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import disk_error
from captune.core.files.limits import parse_json
from captune.core.wording import counted
from captune.library.database import Database
from captune.library.schema import VERSION
from captune.library.vectors import VectorFile, map_rows, vectors_path

# In the order in which rows need each other.
TABLES = ("images", "captions", "keywords", "steps", "changes", "parts", "rounds", "writings", "sources", "embedders")
_HEAD, _ROWS = "captune_library", "rows"
_HINT = "Name a file that captune library export wrote."
_ROWS_AT_ONCE = 4096
# Seconds after which a copy that does not grow is nobody's.
_OLD = 3600


def export_rows(database: Database) -> Iterator[dict[str, Any]]:
    """Every row of every table as an object with its `table`; first version and number of rows, last the vectors."""
    with database.read() as connection:
        counts = (connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in (*TABLES, "vectors"))
        yield {_HEAD: VERSION, _ROWS: sum(counts)}
        for table in TABLES:
            for row in connection.execute(f"SELECT * FROM {table}"):
                yield {"table": table, **{name: _plain(value) for name, value in dict(row).items()}}
        for embedder in connection.execute("SELECT * FROM embedders").fetchall():
            rows = map_rows(vectors_path(database, embedder["id"]), embedder["rows"], embedder["size"])
            for found in connection.execute("SELECT * FROM vectors WHERE embedder = ?", (embedder["id"],)):
                head = {"table": "vectors", "embedder": embedder["id"], "image": found["image"]}
                yield {**head, "digest": found["digest"], "fp16": _plain(rows[found["row"]].tobytes())}


def import_rows(database: Database, path: Path) -> int:
    """Fill an empty library with an export; the number of its images.

    Raises `CaptuneError` for a line that is none, with its number, for a file that was cut, or where the library is not
    empty: then nothing was taken over.
    """
    count = last = 0

    def numbered() -> Iterator[tuple[int, dict[str, Any]]]:
        nonlocal last
        for last, value in _lines(path):
            each = last, value
            yield each

    rows = numbered()
    with database.write() as connection:
        if connection.execute("SELECT 1 FROM images").fetchone():
            raise CaptuneError(f"{database.path} is not empty.", "Import into a new one: --library DIR")
        head = next(rows, (1, {}))[1]
        _check_head(head, path)
        for is_vector, some in groupby(rows, key=lambda row: row[1].get("table") == "vectors"):
            if is_vector:
                _add_vectors(database, (value for _, value in some))
            else:
                count += _add_rows(connection, some, path)
        if last - 1 < head.get(_ROWS, 0):  # exports of earlier versions do not say it
            raise CaptuneError(
                f"{path} was cut: {last - 1:,} of its {counted(head[_ROWS], 'row')} are there.", "Export it again."
            )
    return count


def check_export(path: Path) -> None:
    """Raise `CaptuneError` for a file that does not begin as an export does."""
    _check_head(next(_lines(path), (1, {}))[1], path)


def check_place(path: Path) -> None:
    """Raise `CaptuneError` where an export of all may not be written: a file of another kind stands there."""
    if path.suffix.lower() != ".jsonl":
        raise UsageError(
            f"All of a library is written as JSON Lines, and {path} does not end in .jsonl.",
            f"Name it {path.with_suffix('.jsonl')}; or choose a format for its captions: --format",
        )
    if path.is_file() and path.stat().st_size:
        try:
            check_export(path)
        except CaptuneError:
            raise CaptuneError(
                f"{path} is there already, and is no export of a library.", "Take another --out, or move that file."
            ) from None


def _add_rows(connection: sqlite3.Connection, rows: Iterable[tuple[int, dict[str, Any]]], path: Path) -> int:
    """Insert numbered lines; how many images they are."""
    known = {table: {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")} for table in TABLES}
    count = 0
    for number, value in rows:
        table = value.pop("table", None)
        if table not in known or not known[table].issuperset(value):
            raise CaptuneError(f"{path}, line {number}: no row of a library.", _HINT)
        _insert(connection, table, value | {"rows": 0} if table == "embedders" else value)
        count += table == "images"
    return count


def _add_vectors(database: Database, rows: Iterator[dict[str, Any]]) -> None:
    """Write vectors into their files, those of an embedder after one another."""
    for embedder, group in groupby(rows, key=itemgetter("embedder")):
        query = "SELECT name, digest, size FROM embedders WHERE id = ?"
        file = VectorFile(database, *database.connection.execute(query, (embedder,)).fetchone())
        while some := list(islice(group, _ROWS_AT_ONCE)):
            read = [np.frombuffer(base64.b64decode(each["fp16"]["base64"]), np.float16) for each in some]
            file.add([each["image"] for each in some], np.stack(read))


def write_lines(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> None:
    for row in rows:
        file.write(json.dumps(row) + "\n")


def back_up(database: Database, folder: Path, name: str, keep: int = 5) -> Path:
    """A copy of the database in `folder`; of the copies that are there the newest `keep` stay."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob("*.part*"):  # of a process that was killed; not one that is being written
            if half.stat().st_mtime < time.time() - _OLD:
                half.unlink()
    except OSError as error:
        raise disk_error(error, folder) from error
    path = folder / f"{name}.db"
    database.copy_to(path)
    for old in sorted(folder.glob("*.db"))[:-keep]:
        old.unlink()
    return path


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, with the numbers of their lines."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = parse_json(line.decode("utf-8"))
            except ValueError as error:  # bytes that are no UTF-8 as well
                raise CaptuneError(f"{path}, line {number}: no JSON ({error}).", _HINT) from None
            if not isinstance(value, dict):
                raise CaptuneError(f"{path}, line {number}: no row of a library.", _HINT)
            yield number, value


def _check_head(value: Mapping[str, Any], path: Path) -> None:
    if not isinstance(value.get(_HEAD), int):
        raise CaptuneError(f"{path} is no export of a library.", _HINT)
    if value[_HEAD] > VERSION:
        raise CaptuneError(f"{path} is of a later captune.", "Update captune.")


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    values = [
        base64.b64decode(each["base64"]) if isinstance(each, dict)
        else each.encode("utf-8", "surrogateescape") if isinstance(each, str) else each
        for each in row.values()
    ]  # fmt: skip
    marks = ", ".join("CAST(? AS TEXT)" if isinstance(each, str) else "?" for each in row.values())
    connection.execute(f"INSERT INTO {table}({', '.join(row)}) VALUES ({marks})", values)
