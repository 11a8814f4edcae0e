"""The database of a library: SQLite in a file, written by any number of processes, whole after any stop."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import disk_error
from captune.core.machine import disk_full
from captune.library.schema import prepare_schema

FILE = "library.db"
# How long a process waits for another one that writes, in seconds.
_PATIENCE = 30.0
_CACHE_KIB = 65_536


def now() -> str:
    """The time (UTC) as a library has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_as_time(day: str) -> str:
    """A day (UTC), as a provenance has it, as a time of a library."""
    return f"{day}T00:00:00Z" if len(day) == len("2024-01-01") else day


class Database:
    """Connections to a library's file, one a thread, of which one at a time writes.

    What `write` has committed survives the end of the process and, as far as the disk keeps its word, of the machine.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the file; raises `CaptuneError` where there is none (unless `create`), or none that is whole."""
        self.path = path
        self._own = threading.local()
        if not path.is_file() and not create:
            raise CaptuneError(f"There is no library at {path}.", "Make one: captune library add FOLDER")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, path.parent) from error
        with self._plain():
            prepare_schema(self.connection, str(path))

    @property
    def connection(self) -> sqlite3.Connection:
        """That of this thread."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = self._connect()
        return found

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all that the block writes, or nothing of it. Others wait meanwhile.

        Raises `CaptuneError` where the disk is full or may not be written.
        """
        with self._plain():
            connection = self.connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has ended the transaction already
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One state of the library for all that the block reads, whatever others write meanwhile."""
        with self._plain():
            connection = self.connection
            if connection.in_transaction:  # within a block that writes
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    def problems(self) -> list[str]:
        """What is damaged in the file, in SQLite's words; empty where nothing is."""
        with self._plain():
            connection = self.connection
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
            found += [f"a row without its image in {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
            try:
                connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")
            except sqlite3.DatabaseError as error:
                found.append(f"the index of words: {error}")
            return [each for each in found if each != "ok"]

    def copy_to(self, path: Path) -> None:
        """Write a whole copy of the library as it is now, while others may go on."""
        with self._plain():
            copy = sqlite3.connect(path)
            try:
                self.connection.backup(copy)
            finally:
                copy.close()

    def close(self) -> None:
        """Close the connection of this thread."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is not None:
            found.close()
            del self._own.connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        # Without shared memory, as on some network disks, SQLite stays with a journal that needs none.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """SQLite's errors in captune's words."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            explained = self._explained(error)
            if explained is None:
                raise
            raise explained from error

    def _explained(self, error: sqlite3.DatabaseError) -> CaptuneError | None:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary == sqlite3.SQLITE_FULL:
            return disk_full(OSError(str(error)), self.path)
        if primary == sqlite3.SQLITE_BUSY:
            return CaptuneError(
                f"Another process has been writing to {self.path} for {_PATIENCE:.0f} seconds.",
                "Wait for it, or end it.",
            )
        if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or not os.access(
            self.path.parent, os.W_OK
        ):
            return CaptuneError(
                f"{self.path} may not be written.",
                "Change its permissions, or keep the library elsewhere: --library DIR",
            )
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CaptuneError(
                f"{self.path} is damaged: {error}.",
                "See what is left: captune library check. A copy of an earlier state lies in backups/ beside it.",
            )
        return None
