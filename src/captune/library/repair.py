"""The way back from a damaged library: what can be read of it, and the rest from its last whole copy."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import disk_error
from captune.library.database import BACKUPS, DamagedLibrary, Database
from captune.library.transfer import TABLES

_BESIDE = ("", "-wal", "-shm")
# Rows of images that are not there any more, after the rest was put together.
_LOOSE = """
DELETE FROM captions WHERE image NOT IN (SELECT id FROM images);
DELETE FROM keywords WHERE image NOT IN (SELECT id FROM images);
DELETE FROM changes WHERE image NOT IN (SELECT id FROM images) OR step NOT IN (SELECT id FROM steps);
DELETE FROM parts WHERE image NOT IN (SELECT id FROM images);
DELETE FROM vectors WHERE image NOT IN (SELECT id FROM images) OR embedder NOT IN (SELECT id FROM embedders);
UPDATE captions SET of = NULL WHERE of NOT IN (SELECT id FROM captions);
UPDATE changes SET caption = NULL WHERE caption NOT IN (SELECT id FROM captions);
"""
# No number of a row is larger by far.
_HIGHEST = (1 << 40) - 1
_ERRORS = (sqlite3.DatabaseError, UnicodeError, OverflowError)


@dataclass(frozen=True)
class Repair:
    """What was done: rows that were read of the damaged file, and those from the copy `backup`, by table.

    `damaged` is the folder in which the damaged file lies now; None where the library was mended in its place.
    """

    read: dict[str, int]
    restored: dict[str, int]
    backup: str | None
    damaged: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        if self.damaged is None:
            return "The indexes were made anew; all rows are there."
        text = f"Read of the damaged file: {_counts(self.read)}."
        if self.backup is not None:
            text += f" From {self.backup}: {_counts(self.restored)}."
        return f"{text} The damaged file lies in {self.damaged}."


def _counts(counts: dict[str, int]) -> str:
    shown = [f"{counts[name]:,} {name}" for name in ("images", "captions", "keywords") if counts.get(name)]
    return ", ".join(shown) or "nothing"


def newest_backup(own: Path) -> Path | None:
    """The last copy of a library that is whole; `own` is the folder of its files."""
    for path in sorted((own / BACKUPS).glob("*.db"), reverse=True):
        address = f"{path.absolute().as_uri()}?mode=ro"
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(address, uri=True)) as copy:
            if copy.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                return path
    return None


def repair(path: Path, time: str) -> Repair | None:
    """Mend the library's file at `path`; None where it is whole. No other process may use it meanwhile.

    The damaged file is kept, in a folder `damaged-<time>` beside it. Raises `CaptuneError` where neither it nor a copy
    can be read: then nothing was changed.
    """
    with suppress(DamagedLibrary):
        database = Database(path)
        problems = database.problems()
        if problems:
            problems = _with_new_indexes(database)
            if not problems:
                return Repair({}, {}, None, None)
        database.close()
        if not problems:
            return None
    return _from_rows(path, time)


def _with_new_indexes(database: Database) -> list[str]:
    """Make all indexes anew; what is damaged still."""
    with suppress(CaptuneError), database.write() as connection:
        connection.execute("REINDEX")
        connection.execute("INSERT INTO words(words) VALUES ('rebuild')")
    return database.problems()


def _from_rows(path: Path, time: str) -> Repair:
    """Put a new file together from rows, and put it in the place of the damaged one."""
    backup = newest_backup(path.parent)
    aside = path.parent / f"damaged-{time}"
    made = aside / "repaired.db"
    try:
        aside.mkdir()
        for end in _BESIDE:
            if (file := path.with_name(path.name + end)).exists():
                shutil.copy2(file, aside / file.name)
        read, restored = _put_together(made, aside / path.name, backup)
        if not read.get("images") and backup is None:
            raise CaptuneError(
                f"Nothing can be read of {path}, and there is no copy in {BACKUPS}/ beside it.",
                "Move it away; then captune library import takes over an export, and captune library add begins anew.",
            )
        for end in _BESIDE[1:]:
            path.with_name(path.name + end).unlink(missing_ok=True)
        made.replace(path)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)  # the damaged file lies where it lay
        if isinstance(error, OSError):
            raise disk_error(error, path) from error
        raise
    return Repair(read, restored, None if backup is None else str(backup), str(aside))


def _put_together(made: Path, damaged: Path, backup: Path | None) -> tuple[dict[str, int], dict[str, int]]:
    database = Database(made, create=True)
    read: dict[str, int] = {}
    restored: dict[str, int] = {}
    connection = database.connection
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        with database.write(), closing(_source(damaged)) as source:
            copy = None if backup is None else _source(backup)
            for table in (*TABLES, "vectors"):
                read[table], whole = _copied(connection, source, table)
                if not whole and copy is not None:
                    restored[table], _ = _copied(connection, copy, table)
            for statement in filter(str.strip, _LOOSE.split(";")):
                connection.execute(statement)
            if copy is not None:
                copy.close()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    finally:
        database.close()
    return read, restored


def _source(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = bytes
    return connection


def _copied(target: sqlite3.Connection, source: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy what can be read of a table and is not there yet; how many rows, and whether that is all of it."""
    columns = target.execute(f"PRAGMA table_info({table})").fetchall()
    try:
        there = {row[1].decode() for row in source.execute(f"PRAGMA table_info({table})")}
    except _ERRORS:
        there = set()
    columns = [row for row in columns if row["name"] in there]
    if not columns:
        return 0, False
    names = ", ".join(row["name"] for row in columns)
    # Text comes as bytes; `changes` has columns of no type.
    marks = ", ".join(
        f"?{n}" if row["type"] == "BLOB" else f"iif(typeof(?{n}) = 'blob', CAST(?{n} AS TEXT), ?{n})"
        for n, row in enumerate(columns, start=1)
    )
    keys = [row["name"] for row in sorted(columns, key=lambda row: row["pk"]) if row["pk"]]
    rows = _Rows(source, f"SELECT {names} FROM {table} NOT INDEXED", keys)
    count = 0
    for row in rows:
        with suppress(sqlite3.IntegrityError):
            count += target.execute(f"INSERT OR IGNORE INTO {table}({names}) VALUES ({marks})", row).rowcount
    return count, rows.whole


class _Rows:
    """The rows of a query that can be read, some of them twice; `whole` says in the end whether those are all."""

    def __init__(self, source: sqlite3.Connection, select: str, keys: Sequence[str]) -> None:
        self.source, self.select, self.keys, self.whole = source, select, keys, True

    def __iter__(self) -> Iterator[Sequence[Any]]:
        for direction in ("", " DESC"):  # what stands behind a damaged page is read from the end
            try:
                yield from self.source.execute(
                    f"{self.select} ORDER BY {', '.join(key + direction for key in self.keys)}"
                )
                return
            except _ERRORS:
                self.whole = False
        if len(self.keys) == 1:
            yield from self._between(0, _HIGHEST)

    def _between(self, first: int, last: int) -> Iterator[Sequence[Any]]:
        """Rows whose number is in a range, which is halved wherever it cannot be read."""
        try:
            query = f"{self.select} WHERE {self.keys[0]} BETWEEN ? AND ?"
            yield from self.source.execute(query, (first, last))
        except _ERRORS:
            if first < last:
                middle = (first + last) // 2
                yield from self._between(first, middle)
                yield from self._between(middle + 1, last)
