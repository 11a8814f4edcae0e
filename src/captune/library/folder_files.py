"""The image files of a library's folder as a scan lists them, and what became of them while it was at work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from captune.core.errors import CaptuneError
from captune.datasets.sources.listing import walk_folders
from captune.images.signatures import is_image_name
from captune.library.database import Database, encoded

# Images whose names are in memory at a time.
CHUNK = 20_000
# Files of the list that the library does not know as they lie there, and that were not opened yet.
UNOPENED = """FROM there LEFT JOIN images ON images.path = there.path AND images.gone IS NULL
    LEFT JOIN scanned ON scanned.path = there.path
    WHERE (images.id IS NULL OR (images.bytes, images.modified) IS NOT (there.bytes, there.modified))
    AND (scanned.path IS NULL OR (scanned.bytes, scanned.modified) IS NOT (there.bytes, there.modified))"""
_OPENED = """FROM scanned JOIN there ON there.path = scanned.path
    WHERE (scanned.bytes, scanned.modified) IS (there.bytes, there.modified)"""
_NOT_LISTED = """SELECT images.path FROM images LEFT JOIN there ON there.path = images.path
    WHERE images.gone IS NULL AND there.path IS NULL"""

FileState = tuple[bytes, int, int]


class FolderFiles:
    """Path, size and time of each image in a folder, in a table `there` of this thread's connection.

    `listed` gives the paths of a data set's images, where they are not those that lie in the folder, and `archive_of`
    the archive in which one of them lies, if any: its size and time are the image's.
    """

    def __init__(
        self,
        database: Database,
        folder: str,
        listed: Callable[[], Iterable[str]] | None = None,
        archive_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self.database, self.folder, self._listed, self._archive_of = database, folder, listed, archive_of

    def make(self) -> None:
        """List them; raises `CaptuneError` where no image is left of those that the library knows."""
        connection = self.database.connection
        connection.execute("PRAGMA temp_store = FILE")
        connection.execute("DROP TABLE IF EXISTS temp.there")
        connection.execute(
            "CREATE TEMP TABLE there(path TEXT PRIMARY KEY, bytes INTEGER, modified INTEGER) WITHOUT ROWID"
        )
        files = map(self._state, self._walk() if self._listed is None else self._listed())
        while some := list(islice(files, CHUNK)):
            with self.database.write():
                connection.executemany("INSERT OR IGNORE INTO there VALUES (CAST(? AS TEXT), ?, ?)", some)
        if connection.execute("SELECT 1 FROM there").fetchone():
            return
        if connection.execute("SELECT 1 FROM images WHERE gone IS NULL").fetchone():
            raise CaptuneError(
                f"{self.folder} holds no image any more.",
                "Is a disk not mounted? Nothing was changed; bring them back first.",
            )

    def version(self) -> int:
        """A number that is another one as soon as another connection changed the library."""
        found: int = self.database.connection.execute("PRAGMA data_version").fetchone()[0]
        return found

    def catch_up(self, version: int) -> bool:
        """Bring the list in step with what happened since it was made; whether there is nothing to open.

        Images that the library knows and the list does not have are looked for once more: another process may have
        found them where they appeared meanwhile. Where another one changed the library since that `version`, files
        that it took away or that are not there any more are looked at again.
        """
        connection = self.database.connection
        late = self._late_files(connection)
        connection.executemany("INSERT OR REPLACE INTO there VALUES (CAST(? AS TEXT), ?, ?)", late)
        others_wrote = self.version() != version
        if self._listed is None:
            self._forget_vanished(connection, "" if others_wrote else "AND problem IS NOT NULL")
        if not late and not others_wrote:
            return True
        rows = connection.execute(f"SELECT there.path {UNOPENED}").fetchall()
        connection.executemany(
            "INSERT OR REPLACE INTO there VALUES (CAST(? AS TEXT), ?, ?)", [self._state(row["path"]) for row in rows]
        )
        if self._listed is None:
            self._forget(connection, (row["path"] for row in rows))
        return connection.execute(f"SELECT 1 {UNOPENED} LIMIT 1").fetchone() is None

    def _walk(self) -> Iterator[str]:
        for here, names in walk_folders(self.folder, once=True):
            within = os.path.relpath(here, self.folder).replace(os.sep, "/")
            yield from (name if within == "." else f"{within}/{name}" for name in names if is_image_name(name))

    def _state(self, path: str) -> FileState:
        """Path, size and time of an image; zeros of a broken link or where it is missing: opening it tells why."""
        archive = None if self._archive_of is None else self._archive_of(self._file(path))
        try:
            status = os.stat(archive or self._file(path))
        except OSError:
            return encoded(path), 0, 0
        return encoded(path), status.st_size, status.st_mtime_ns

    def _file(self, path: str) -> str:
        return os.path.join(self.folder, path)

    def _late_files(self, connection: sqlite3.Connection) -> list[FileState]:
        """Images that the library knows, that the list does not have, and that are there all the same."""
        late: list[FileState] = []
        again: set[str] | None = None
        last = b""
        query = f"{_NOT_LISTED} AND images.path > CAST(? AS TEXT) ORDER BY images.path LIMIT {CHUNK}"
        while rows := connection.execute(query, (last,)).fetchall():
            last = encoded(rows[-1]["path"])
            if self._listed is None:
                found = [row["path"] for row in rows if os.path.exists(self._file(row["path"]))]
                late += [self._state(path) for path in found if not self._is_listed_as_another(connection, path)]
            else:
                again = set(self._listed()) if again is None else again
                late += [self._state(row["path"]) for row in rows if row["path"] in again]
        return late

    def _is_listed_as_another(self, connection: sqlite3.Connection, path: str) -> bool:
        """Whether the list has the file by another path: through a link to its folder, or in other letters' case."""
        connection.execute("CREATE INDEX IF NOT EXISTS temp.there_by_time ON there(modified, bytes)")
        query = "SELECT path FROM there WHERE bytes = ? AND modified = ?"
        file = self._file(path)
        _, size, modified = self._state(path)
        for row in connection.execute(query, (size, modified)):
            other = self._file(row["path"])
            if os.path.basename(other).casefold() == os.path.basename(file).casefold() and _same(file, other):
                return True
        return False

    def _forget_vanished(self, connection: sqlite3.Connection, condition: str) -> None:
        """Take files from the list that were opened and are gone since."""
        self._forget(
            connection, (row["path"] for row in connection.execute(f"SELECT there.path {_OPENED} {condition}"))
        )

    def _forget(self, connection: sqlite3.Connection, paths: Iterable[str]) -> None:
        gone = [(encoded(path),) for path in paths if not os.path.lexists(self._file(path))]
        connection.executemany("DELETE FROM there WHERE path = CAST(? AS TEXT)", gone)


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to one file in one folder."""
    try:
        return os.path.samefile(one, other) and os.path.samefile(os.path.dirname(one), os.path.dirname(other))
    except OSError:
        return False
