"""A library as JSON Lines, and back without loss."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files.limits import parse_json
from captune.library.database import Database
from captune.library.schema import VERSION
from captune.library.vectors import VectorFile, map_rows, vectors_path

# In the order in which rows need each other.
TABLES = ("images", "captions", "keywords", "steps", "changes", "parts", "rounds", "writings", "sources", "embedders")
_HEAD = "captune_library"
_ROWS_AT_ONCE = 4096


def export_rows(database: Database) -> Iterator[dict[str, Any]]:
    """Every row of every table as an object with its `table`; first the version, last the vectors."""
    with database.read() as connection:
        yield {_HEAD: VERSION}
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

    Raises `CaptuneError` for a line that is none, with its number, or where the library is not empty: then nothing was
    taken over.
    """
    count = 0
    with database.write() as connection:
        if connection.execute("SELECT 1 FROM images").fetchone():
            raise CaptuneError(f"{database.path} is not empty.", "Import into a new one: --library DIR")
        for number, value in enumerate(_lines(path), start=1):
            if number == 1:
                _check_head(value, path)
            elif value.get("table") != "vectors":
                count += value.get("table") == "images"
                _insert(connection, value, f"{path}, line {number}")
    vectors = (value for value in _lines(path) if value.get("table") == "vectors")
    for embedder, rows in groupby(vectors, key=itemgetter("embedder")):
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            read = [np.frombuffer(base64.b64decode(each["fp16"]["base64"]), np.float16) for each in some]
            file = VectorFile(database, *_embedder(database, embedder))
            file.add([each["image"] for each in some], np.stack(read))
    return count


def _embedder(database: Database, number: int) -> tuple[str, str, int]:
    row = database.connection.execute("SELECT name, digest, size FROM embedders WHERE id = ?", (number,)).fetchone()
    return row["name"], row["digest"], row["size"]


def write_lines(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> None:
    for row in rows:
        file.write(json.dumps(row) + "\n")


def back_up(database: Database, folder: Path, name: str, keep: int = 5) -> Path:
    """A copy of the database in `folder`; of the copies that are there the newest `keep` stay."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.db"
    database.copy_to(path)
    for old in sorted(folder.glob("*.db"))[:-keep]:
        old.unlink()
    return path


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else value


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    hint = "Name a file that captune library export wrote."
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = parse_json(line)
            except ValueError as error:
                raise CaptuneError(f"{path}, line {number}: no JSON ({error}).", hint) from None
            if not isinstance(value, dict):
                raise CaptuneError(f"{path}, line {number}: no row of a library.", hint)
            yield value


def _check_head(value: Mapping[str, Any], path: Path) -> None:
    if not isinstance(value.get(_HEAD), int):
        raise CaptuneError(f"{path} is no export of a library.", "Name a file that captune library export wrote.")
    if value[_HEAD] > VERSION:
        raise CaptuneError(f"{path} is of a later captune.", "Update captune.")


def _insert(connection: sqlite3.Connection, value: dict[str, Any], where: str) -> None:
    table = value.pop("table", None)
    known = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")} if table in TABLES else set()
    if not known or not set(value) <= known:
        raise CaptuneError(f"{where}: no row of a library.", "Name a file that captune library export wrote.")
    value |= {"rows": 0} if table == "embedders" else {}
    values = [
        base64.b64decode(each["base64"]) if isinstance(each, dict)
        else each.encode("utf-8", "surrogateescape") if isinstance(each, str) else each
        for each in value.values()
    ]  # fmt: skip
    marks = ", ".join("CAST(? AS TEXT)" if isinstance(each, str) else "?" for each in value.values())
    connection.execute(f"INSERT INTO {table}({', '.join(value)}) VALUES ({marks})", values)
