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
from captune.core.machine import disk_full, free_bytes, is_disk_full
from captune.core.wording import command_line
from captune.library.disk import locks_work, may_write, on_network
from captune.library.schema import prepare_schema

# Folder of a library among its images, and its files there.
OWN = ".captune"
FILE = "library.db"
BACKUPS = "backups"
# How long a process waits for another one that writes, in seconds.
_PATIENCE = 30.0
_CACHE_KIB = 65_536
# So much of a file is mapped into memory where it is read: as much as SQLite allows.
_MAPPED = 2**31 - 2**16


def now() -> str:
    """The time (UTC) as a library has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_as_time(day: str) -> str:
    """A day (UTC), as a provenance has it, as a time of a library."""
    return f"{day}T00:00:00Z" if len(day) == len("2024-01-01") else day


def encoded(path: str) -> bytes:
    """A path as the database has it; bytes of a name that are no UTF-8 stay as they are (`CAST(? AS TEXT)`)."""
    return path.encode("utf-8", "surrogateescape")


class DamagedLibrary(CaptuneError):
    """The file of a library is not whole."""


class Database:
    """Connections to a library's file, one a thread, of which one at a time writes.

    What `write` has committed survives the end of the process and, as far as the disk keeps its word, of the machine.
    Where the file may not be written it can be read.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the file; raises `CaptuneError` where there is none (unless `create`), or none that is whole."""
        self.path = path
        # A file whose disk is gone ends the process that has it mapped.
        self._mapped = 0 if on_network(path) else _MAPPED
        self._own = threading.local()
        if not (path.is_file() and path.stat().st_size) and any(path.parent.glob(f"{BACKUPS}/*.db")):
            raise self._damaged("it is empty" if path.is_file() else "it is not there any more")
        if not path.is_file() and not create:
            raise CaptuneError(f"There is no library at {path}.", f"Make one: {self.command('library add')}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise disk_error(error, path.parent) from error
            raise self._unwritable() from error
        with self._plain():
            prepare_schema(self.connection, str(path))

    def command(self, verb: str, *more: str) -> str:
        """A command for this library, as it is typed; FOLDER where its file does not tell the folder of the images."""
        own = self.path.parent
        place = [str(own.parent)] if own.name == OWN else ["FOLDER", "--library", str(own)]
        return command_line(*verb.split(), *place, *more)

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
        if getattr(self._own, "writing", False):  # within another block that writes: a part of that one
            yield self.connection
            return
        with self._plain():
            connection = self.connection
            connection.execute("BEGIN IMMEDIATE")
            self._own.writing = True
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has ended the transaction already
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._own.writing = False

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One state of the library for all that the block reads, whatever others write meanwhile."""
        with self._plain():
            connection = self.connection
            if connection.in_transaction:  # within a block that writes
                yield connection
                return
            connection.execute(f"PRAGMA mmap_size = {self._mapped}")
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
        """Write a whole copy of the library as it is now, while others may go on; raises `CaptuneError`."""
        half = path.with_name(path.name + ".part")
        try:
            with self._plain(half):
                copy = sqlite3.connect(half)
                try:
                    self.connection.backup(copy)
                    copy.execute("PRAGMA journal_mode = DELETE")  # a file alone
                finally:
                    copy.close()
            with open(half, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(half, path)
        except OSError as error:
            raise disk_error(error, path) from error
        finally:
            half.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connection of this thread."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is not None:
            found.close()
            del self._own.connection

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists() or may_write(self.path):
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            _set_journal(connection, self.path)
            connection.execute("PRAGMA synchronous = FULL")
        else:
            connection = _read_only(self.path)
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection

    @contextmanager
    def _plain(self, path: Path | None = None) -> Iterator[None]:
        """SQLite's errors, of the library or of a file beside it, in captune's words."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            explained = self._explained(error, path or self.path)
            if explained is None:
                raise
            raise explained from error

    def _explained(self, error: sqlite3.DatabaseError, path: Path) -> CaptuneError | None:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and not free_bytes(path.parent)):
            return disk_full(OSError(str(error)), path)
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged(str(error))
        if primary == sqlite3.SQLITE_BUSY and locks_work(self.path.parent):
            return CaptuneError(
                f"Another process has been writing to {self.path} for {_PATIENCE:.0f} seconds.",
                "Wait for it, or end it.",
            )
        if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or not may_write(path):
            return self._unwritable()
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS):
            return CaptuneError(
                f"The disk of {path} does not do what a database needs: {error}.",
                "Network disks often cannot lock files. Keep the library on a disk of this machine: --library DIR",
            )
        return None

    def _unwritable(self) -> CaptuneError:
        return CaptuneError(
            f"{self.path} may not be written.", "Change its permissions, or keep the library elsewhere: --library DIR"
        )

    def _damaged(self, reason: str) -> DamagedLibrary:
        return DamagedLibrary(
            f"{self.path} is damaged: {reason}.",
            f"{self.command('library check', '--repair')} takes over what can be read, and the rest from the last copy "
            f"in {BACKUPS}/ beside it.",
        )


def _set_journal(connection: sqlite3.Connection, path: Path) -> None:
    """A log beside the file (WAL), where the disk is one of this machine; elsewhere a journal that needs no more."""
    if not on_network(path):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
    connection.execute("PRAGMA journal_mode = DELETE")


def _read_only(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, not even beside the file."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=_PATIENCE, isolation_level=None)
    log = path.with_name(path.name + "-wal")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if log.exists() and log.stat().st_size:  # what it has is not in the file yet
            raise
        return sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    return connection
