"""What lies in a library's folder now against what the library knows: new, changed, moved and gone images."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any, Protocol

from captune.core.errors import ImageError
from captune.core.files.fingerprints import file_content
from captune.core.progress import SILENT, Progress
from captune.images.verify import ImageCheck, verify, verify_bytes
from captune.images.workers import cores
from captune.library.database import Database, encoded
from captune.library.folder_files import CHUNK, UNOPENED, FolderFiles
from captune.library.schema import statements

# Images that are opened between two commits: so many are opened again after a stop.
_STEP = 256
# Images that came or went while others were opened are opened so many times; then they wait for the next scan.
_PASSES = 5
# Images of an archive for which another process is started.
_IMAGES_PER_PROCESS = 16

ReadFields = Callable[..., str]
Opened = tuple[ImageCheck, str]


class Archives(Protocol):
    """Archives in which images lie."""

    def archive_of(self, path: str) -> str | None:
        """The archive of an image; None of a file of its own."""

    def images(self, archive: str, paths: Collection[str]) -> Iterator[tuple[str, bytes | ImageError]]:
        """The bytes of the files of images in an archive, or why there are none."""


@dataclass(frozen=True)
class ScanReport:
    """How many images are there now, and what became of the others; `unreadable` of those that are there."""

    images: int
    new: int
    changed: int
    moved: int
    gone: int
    unreadable: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def scan(
    database: Database,
    folder: str,
    read_fields: ReadFields,
    *,
    now: str,
    max_pixels: int,
    workers: int = 0,
    listed: Callable[[], Iterable[str]] | None = None,
    archives: Archives | None = None,
    progress: Progress = SILENT,
) -> ScanReport:
    """Bring the images of a library in step with its folder; each new or changed file is read once.

    An image is known by its contents: one that lies elsewhere now has moved, and keeps its captions, whatever took its
    place. One whose contents changed where it lies keeps them as well; one that is gone comes back with them.
    `read_fields` has for a path, and the bytes of an image in an archive, what the file says of itself, as JSON.
    `listed` gives the paths of a data set's images, where they are not those that lie in the folder; some of them may
    lie in `archives`, and are opened again where their archive was changed. Several processes may scan at once, and
    files come and go: before an image counts as gone it is looked for once more.
    """
    files = FolderFiles(database, folder, listed, None if archives is None else archives.archive_of)
    with progress.task("Looking through the folder"):
        files.make()
    opening = partial(_opened, read_fields=read_fields, archives=archives, max_pixels=max_pixels, workers=workers)
    passes = 0
    while True:
        version, passes = files.version(), passes + 1
        _open_new(database, folder, opening, progress)
        with progress.task("Comparing"), database.write() as connection:
            if files.catch_up(version) or passes == _PASSES:
                return _take_in(connection, now)


def _open_new(
    database: Database, folder: str, opening: Callable[[list[str]], Iterator[Opened]], progress: Progress
) -> None:
    """Open what is not known as it lies there now, and note what was found, a few hundred images at a time."""
    connection = database.connection
    last = b""
    with progress.task("Opening images", connection.execute(f"SELECT count(*) {UNOPENED}").fetchone()[0]) as task:
        while True:
            rows = connection.execute(
                f"SELECT there.* {UNOPENED} AND there.path > CAST(? AS TEXT) ORDER BY there.path LIMIT ?", (last, CHUNK)
            ).fetchall()
            if not rows:
                return
            last = encoded(rows[-1]["path"])
            paths = [os.path.join(folder, row["path"]) for row in rows]
            found = map(_found, rows, paths, opening(paths))
            while some := list(islice(found, _STEP)):
                with database.write():
                    connection.executemany(
                        "INSERT OR REPLACE INTO scanned VALUES (CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?, ?)", some
                    )
                task.advance(len(some))


def _opened(
    paths: list[str], *, read_fields: ReadFields, archives: Archives | None, max_pixels: int, workers: int
) -> Iterator[Opened]:
    """What opening each image found, and what it says of itself; those of one archive as they come in it."""
    for archive, some in groupby(paths, archives.archive_of if archives is not None else lambda path: None):
        here = list(some)
        if archives is None or archive is None:
            for path, check in zip(here, verify(here, max_pixels=max_pixels, workers=workers), strict=True):
                yield check, read_fields(path) if check.reason is None else "{}"
            continue
        count = min(workers or cores(), 1 + len(here) // _IMAGES_PER_PROCESS)
        found = _in_archive(archives.images(archive, here), read_fields, max_pixels, count)
        yield from (found[path] for path in here)


def _in_archive(
    images: Iterator[tuple[str, bytes | ImageError]], read_fields: ReadFields, max_pixels: int, workers: int
) -> dict[str, Opened]:
    found: dict[str, Opened] = {}
    names: list[str] = []

    def readable() -> Iterator[bytes]:
        for path, data in images:
            if isinstance(data, bytes):
                names.append(path)
                yield data
            else:
                found[path] = ImageCheck(0, data.reason, data.kind), "{}"

    for number, (data, check) in enumerate(verify_bytes(readable(), max_pixels=max_pixels, workers=workers)):
        path = names[number]
        found[path] = check, read_fields(path, data) if check.reason is None else "{}"
    return found


def _found(row: sqlite3.Row, path: str, opened: Opened) -> tuple[Any, ...]:
    check, fields = opened
    head = (encoded(row["path"]), row["bytes"], row["modified"])
    if check.reason is None:
        signed = check.hash - (1 << 64) if check.hash >> 63 else check.hash  # SQLite's integers have a sign
        return (*head, check.digest, check.width, check.height, signed, check.thumb, None, fields)
    try:
        digest = file_content(path)
    except OSError:
        digest = ""
    return (*head, digest, None, None, None, None, check.reason, "{}")


# A file that was opened is `found`. Images whose file is gone, or has other contents now, are `loose`: a found file
# with the contents of one is that image; else what lies where it lay is the image, changed.
# A caption whose source is the image was read from it, or written into it: it gives way to another that stands there.
_SORTED_OUT = """
CREATE TEMP TABLE found AS SELECT scanned.* FROM scanned JOIN there USING (path)
  WHERE (scanned.bytes, scanned.modified) IS (there.bytes, there.modified);
CREATE UNIQUE INDEX temp.found_by_path ON found(path);
CREATE TEMP TABLE same AS SELECT images.id, images.path FROM images JOIN found USING (path)
  WHERE images.gone IS NULL AND images.digest = found.digest;
CREATE UNIQUE INDEX temp.same_by_path ON same(path);
CREATE TEMP TABLE loose AS SELECT images.id, images.path, images.digest, images.gone FROM images
  LEFT JOIN there USING (path) LEFT JOIN found USING (path)
  WHERE images.gone IS NOT NULL OR there.path IS NULL OR (found.path IS NOT NULL AND found.digest != images.digest);
CREATE INDEX temp.loose_by_id ON loose(id);
CREATE TEMP TABLE pairs AS SELECT old.id, new.path, old.path AS former FROM
  (SELECT *, row_number() OVER (PARTITION BY digest ORDER BY path) AS place FROM loose WHERE digest != '') old JOIN
  (SELECT *, row_number() OVER (PARTITION BY digest ORDER BY path) AS place FROM found
   WHERE path NOT IN (SELECT path FROM same)) new USING (digest, place);
CREATE UNIQUE INDEX temp.pairs_by_id ON pairs(id);
CREATE UNIQUE INDEX temp.pairs_by_path ON pairs(path);
CREATE TEMP TABLE changed AS SELECT loose.id, path FROM loose JOIN found USING (path)
  WHERE loose.gone IS NULL AND loose.id NOT IN (SELECT id FROM pairs) AND path NOT IN (SELECT path FROM pairs);
CREATE UNIQUE INDEX temp.changed_by_path ON changed(path);
CREATE TEMP TABLE placed AS SELECT id, path FROM pairs UNION ALL SELECT id, path FROM changed
  UNION ALL SELECT id, path FROM same;
CREATE UNIQUE INDEX temp.placed_by_id ON placed(id);
CREATE TEMP TABLE fresh AS SELECT path FROM found WHERE path NOT IN (SELECT path FROM placed);
"""
_APPLIED = """
UPDATE images SET gone = coalesce(gone, :now) WHERE id IN (SELECT id FROM loose);
UPDATE images SET (path, digest, bytes, modified, width, height, hash, thumb, problem, gone) =
  (SELECT found.path, digest, bytes, modified, width, height, hash, thumb, problem, NULL
   FROM placed JOIN found USING (path) WHERE placed.id = images.id) WHERE id IN (SELECT id FROM placed);
INSERT INTO images(path, digest, bytes, modified, width, height, hash, thumb, problem, added)
  SELECT path, digest, bytes, modified, width, height, hash, thumb, problem, :now
  FROM fresh JOIN found USING (path) ORDER BY path;
UPDATE captions SET source = (SELECT path FROM pairs WHERE pairs.id = captions.image)
  WHERE image IN (SELECT id FROM pairs WHERE path != former)
  AND source = (SELECT former FROM pairs WHERE pairs.id = captions.image);
CREATE TEMP TABLE told AS SELECT images.id, found.fields FROM images JOIN found USING (path)
  WHERE images.gone IS NULL AND images.path IN (SELECT path FROM fresh UNION ALL SELECT path FROM changed);
UPDATE images SET (taken, place, names) = (SELECT fields ->> '$.date', fields ->> '$.place', fields ->> '$.names'
  FROM told WHERE told.id = images.id) WHERE id IN (SELECT id FROM told);
INSERT OR IGNORE INTO keywords SELECT told.id, value FROM told, json_each(told.fields, '$.keywords');
INSERT INTO captions(image, text, written_by, model, provenance, status, written, source)
  SELECT told.id, value ->> '$.text', value ->> '$.written_by', coalesce(value ->> '$.model', ''),
         coalesce(value ->> '$.provenance', '{}'), value ->> '$.status', coalesce(value ->> '$.written', :now),
         images.path
  FROM told JOIN images ON images.id = told.id, json_each(told.fields, '$.captions') AS each
  WHERE NOT EXISTS (SELECT 1 FROM captions WHERE image = told.id AND text = each.value ->> '$.text'
                    AND (current OR source = images.path));
UPDATE captions SET current = 0 WHERE id IN (
  SELECT captions.id FROM told JOIN images ON images.id = told.id JOIN captions ON captions.image = told.id
  WHERE current AND source = images.path AND told.fields ->> '$.captions[0].text' IS NOT NULL
  AND text NOT IN (SELECT value ->> '$.text' FROM json_each(told.fields, '$.captions')));
DELETE FROM scanned WHERE path IN (SELECT path FROM there);
"""
_COUNTS = {
    "images": "SELECT count(*) FROM images WHERE gone IS NULL",
    "new": "SELECT count(*) FROM fresh",
    "changed": "SELECT count(*) FROM changed",
    "moved": "SELECT count(*) FROM pairs WHERE path != former",
    "gone": "SELECT count(*) FROM loose WHERE gone IS NULL AND id NOT IN (SELECT id FROM placed)",
    "unreadable": "SELECT count(*) FROM images WHERE gone IS NULL AND problem IS NOT NULL",
}


def _take_in(connection: sqlite3.Connection, now: str) -> ScanReport:
    """Bring the images in step with what was found."""
    tables = ("found", "same", "loose", "pairs", "changed", "placed", "fresh", "told")
    for script in ("".join(f"DROP TABLE IF EXISTS temp.{name};\n" for name in tables), _SORTED_OUT, _APPLIED):
        for statement in statements(script):
            connection.execute(statement, {"now": now} if ":now" in statement else {})
    return ScanReport(**{name: connection.execute(query).fetchone()[0] for name, query in _COUNTS.items()})
