"""What a library reads of a data set or a job, and how it stays in step with it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from captune.captions.row import CaptionRow
from captune.core.progress import SILENT, Progress
from captune.core.wording import counted
from captune.library.database import Database, encoded
from captune.library.filed import PERSON, take_in_row
from captune.library.sets.archived import ArchivedImages
from captune.library.sets.former import prune_former

Kind = Literal["data set", "job"]
_STEP = 1024


@dataclass(frozen=True, slots=True)
class SetImage:
    """An image as a file of the data set has it: its path (within the folder, else absolute), its captions, its split.

    `split` is None where there are no splits, and empty for an image in none.
    """

    path: str
    row: CaptionRow
    split: str | None = None


@dataclass(frozen=True)
class WriteBackReport:
    """What went back: how many `images` have other captions or another split, and into which `files`.

    `former` is the folder with copies of the files as they were, None where nothing was written. Of a data set `digest`
    is its new fingerprint, and `left_out` counts images that are in no split.
    """

    kind: Kind
    images: int
    files: tuple[str, ...] = ()
    former: str | None = None
    digest: str | None = None
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def sentence(self) -> str:
        """What happened, in words."""
        if not self.files:
            return f"The {self.kind} has all of it already."
        left_out = f"; in no split: {self.left_out:,}" if self.left_out else ""
        return f"Written into the {self.kind}: {counted(self.images, 'image')} changed{left_out}."


class DataSet(Protocol):
    """The files of a prepared folder or of a job."""

    folder: Path
    kind: Kind

    @property
    def archives(self) -> ArchivedImages | None:
        """The archives in which its images lie; None where all are files."""

    def images(self) -> Iterator[str]:
        """The paths of all images; raises `CaptuneError` for those that may not be named."""

    def files(self) -> list[str]:
        """The names of the files with captions."""

    def read(self, file: str) -> Iterator[SetImage]:
        """The images of a file with captions."""

    def write(self, database: Database, former: Path) -> WriteBackReport:
        """Write what people changed into the files, after copies of these went into the folder `former`.

        Raises `CaptuneError` where others write to them, or an image cannot be read; then nothing was changed.
        """

    def may_show(self, file: str) -> bool:
        """Whether an image may be read: it lies in the folder, or the set was made here, or the user trusts it."""


def path_in(folder: Path, file: str) -> str:
    """The path of an image as a library of the folder has it."""
    whole, top = os.path.abspath(file), os.path.abspath(folder) + os.sep
    return whole.removeprefix(top).replace(os.sep, "/") if whole.startswith(top) else whole


def without_captions(fields: str) -> str:
    """What an image says of itself, without captions: those of a data set are its own."""
    return json.dumps({name: value for name, value in json.loads(fields).items() if name != "captions"})


def read_set(database: Database, data_set: DataSet, *, now: str, progress: Progress = SILENT) -> int:
    """Bring captions and splits in step with the files that changed since they were last read; how many are new.

    What people changed, took away or chose stays as it is in the library. A caption that nobody touched, and that does
    not stand in its file any more, gives way.
    """
    count = 0
    for file in data_set.files():
        state = _state(data_set.folder / file)
        query = "SELECT bytes, modified FROM sources WHERE path = ?"
        before = database.connection.execute(query, (file,)).fetchone()
        if before is not None and tuple(before) == state:
            continue
        images, whole = iter(data_set.read(file)), True
        with progress.task(f"Reading {file}") as task:
            while some := list(islice(images, _STEP)):
                with database.write() as connection:
                    new = [_take_in(connection, each, file, now) for each in some]
                whole = whole and None not in new
                count += sum(each or 0 for each in new)
                task.advance(len(some))
        if not whole:  # it was written after the images were listed: it is read again the next time
            continue
        with database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", (file, *state))
    return count


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _take_in(connection: sqlite3.Connection, each: SetImage, file: str, now: str) -> int | None:
    """Take in the captions and the split of an image; how many are new, None where the library does not know it."""
    query = "SELECT id, split FROM images WHERE path = CAST(? AS TEXT) AND gone IS NULL"
    image = connection.execute(query, (encoded(each.path),)).fetchone()
    if image is None:
        return None
    if each.split != image["split"] and not _is_chosen(connection, image["id"]):
        connection.execute("UPDATE images SET split = ? WHERE id = ?", (each.split, image["id"]))
    texts = [caption.text for caption in each.row.captions]
    connection.execute(
        "UPDATE captions SET current = 0 WHERE image = ? AND current AND source IS ? "
        "AND NOT EXISTS (SELECT 1 FROM json_each(?) WHERE value = captions.text) "
        "AND NOT EXISTS (SELECT 1 FROM changes WHERE changes.image = captions.image AND changes.caption = captions.id)",
        (image["id"], file, json.dumps(texts)),
    )
    return take_in_row(connection, image["id"], each.row, encoded(file), PERSON, now)["new"]


def _is_chosen(connection: sqlite3.Connection, image: int) -> bool:
    """Whether a person put the image into its split."""
    query = "SELECT 1 FROM changes JOIN steps s ON s.id = step WHERE image = ? AND kind = 'split' AND s.state = 'done'"
    return connection.execute(query, (image,)).fetchone() is not None


# Captions, statuses and splits that people changed, as far as it is not undone.
_CHANGES = """
SELECT count(*) || ' ' || total(c.id) || ' ' || total(c.id * c.id) || ' ' || total(c.after)
FROM changes c JOIN steps s ON s.id = c.step WHERE s.state = 'done' AND c.kind IN ('caption', 'status', 'split')
"""
_FILES = "SELECT group_concat(path || ' ' || bytes || ' ' || modified) FROM (SELECT * FROM sources ORDER BY path)"


def is_unwritten(connection: sqlite3.Connection) -> bool:
    """Whether people changed something that may not be in the files yet."""
    last = connection.execute("SELECT stamp FROM writings ORDER BY id DESC LIMIT 1").fetchone()
    changes: str = connection.execute(_CHANGES).fetchone()[0]
    if last is None:
        return not changes.startswith("0 ")
    return bool(last["stamp"] != _stamp(connection, changes))


def _stamp(connection: sqlite3.Connection, changes: str) -> str:
    """What differs as soon as people, or other programs, change something."""
    return json.dumps([changes, connection.execute(_FILES).fetchone()[0]])


def write_set(
    database: Database, data_set: DataSet, copies: Path, *, who: str, now: str, progress: Progress = SILENT
) -> WriteBackReport:
    """Write what people changed into the files, which were just read, and note it; raises as `DataSet.write`.

    The files as they were go into a folder of `copies`: of these the first of each file and the newest stay.
    """
    with database.read() as connection:
        changes = connection.execute(_CHANGES).fetchone()[0]
    with progress.task(f"Writing into the {data_set.kind}"):
        report = data_set.write(database, _free(copies / now.replace(":", "-")))
    prune_former(copies)
    read_set(database, data_set, now=now, progress=progress)
    with database.write() as connection:
        connection.execute(
            "INSERT INTO writings(at, who, stamp, result) VALUES (?, ?, ?, ?)",
            (now, who, _stamp(connection, changes), json.dumps(report.to_json())),
        )
    return report


def _free(path: Path) -> Path:
    """A path at which nothing is: that one, or with a number behind it."""
    names = (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, 1000)))
    return next(each for each in names if not each.exists())
