"""Captions in text files and XMP packets beside the images of a library: read when a file is new or was changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from captune.core.files import open_regular
from captune.core.files.existing import LEDGER, Ledger, split_keywords
from captune.core.progress import SILENT, Progress
from captune.core.sidecars import SUFFIXES, captions_in
from captune.core.text import decoded
from captune.images.metadata.files import existing_keywords, existing_marks, existing_texts, packet_path
from captune.library.database import Database, encoded

_STEP = 256
_PACKET = ".xmp"
State = tuple[int, int]


@dataclass(frozen=True)
class _Sidecar:
    """A file with captions, within the library's folder, and its image."""

    image: int
    path: str
    bytes: int
    modified: int


def read_sidecars(database: Database, folder: str, *, now: str, progress: Progress = SILENT) -> int:
    """Take in the captions of sidecars that are new or were changed; how many captions are new.

    What captune wrote itself is a model's draft; all else a person wrote, and is approved. A caption that was read from
    the same file before and does not stand there any more gives way to the new one.
    """
    count = 0
    ledgers: dict[str, Ledger] = {}
    changed = list(_changed(database, folder))
    with progress.task("Reading captions beside the images", len(changed)) as task:
        todo = iter(changed)
        while some := list(islice(todo, _STEP)):
            read = [(each, *_read(folder, each, ledgers)) for each in some]
            with database.write() as connection:
                for sidecar, captions, keywords in read:
                    count += _take_in(connection, sidecar, captions, now)
                    found = ((sidecar.image, keyword) for keyword in keywords)
                    connection.executemany("INSERT OR IGNORE INTO keywords VALUES (?, ?)", found)
            task.advance(len(some))
    return count


def _changed(database: Database, folder: str) -> Iterator[_Sidecar]:
    """Sidecars of images that are there, as far as they are not known as they are now."""
    rows = database.connection.execute("SELECT id, path FROM images WHERE gone IS NULL ORDER BY path")
    known = database.connection.cursor()
    stem = ""
    for row in rows:
        path: str = row["path"]
        former, stem = stem, os.path.splitext(path)[0]
        # photo.txt is of photo.jpg where photo.png lies beside it, whose own is photo.png.txt.
        for name in (
            *(stem + suffix for suffix in SUFFIXES if stem != former),
            *(path + suffix for suffix in SUFFIXES),
            str(packet_path(Path(path))),
        ):
            try:
                status = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            state = (status.st_size, status.st_mtime_ns)
            query = "SELECT bytes, modified FROM sources WHERE path = CAST(? AS TEXT)"
            before = known.execute(query, (encoded(name),)).fetchone()
            if before is None or tuple(before) != state:
                yield _Sidecar(row["id"], name, *state)


def has_stem(connection: sqlite3.Connection, image: str) -> bool:
    """Whether `photo.txt` is of this image of that stem, and not of another one that comes before it."""
    stem = os.path.splitext(image)[0]
    rows = connection.execute(
        "SELECT path FROM images WHERE gone IS NULL AND path > CAST(? AS TEXT) AND path < CAST(? AS TEXT)",
        (encoded(stem + "."), encoded(image)),
    )
    return all(os.path.splitext(row["path"])[0] != stem for row in rows)


def source_state(connection: sqlite3.Connection, name: str) -> State | None:
    """Size and time of change of a file with captions when the library last read or wrote it; None: never."""
    query = "SELECT bytes, modified FROM sources WHERE path = CAST(? AS TEXT)"
    row = connection.execute(query, (encoded(name),)).fetchone()
    return None if row is None else (row["bytes"], row["modified"])


def state_of(path: Path) -> State:
    """Size and time of change (nanoseconds) of a file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def note_written(
    connection: sqlite3.Connection, image: int, name: str, state: State, captions: tuple[int, ...]
) -> None:
    """Note which captions stand in a file beside an image now, as if they had been read from it."""
    note_captions(connection, image, encoded(name), captions)
    connection.execute("INSERT OR REPLACE INTO sources VALUES (CAST(? AS TEXT), ?, ?)", (encoded(name), *state))


def note_captions(connection: sqlite3.Connection, image: int, name: bytes, captions: tuple[int, ...]) -> None:
    """Make a file the source of the captions that stand in it, and no longer of others of its image."""
    marks = ", ".join("?" * len(captions))
    connection.execute(
        f"UPDATE captions SET source = '' WHERE image = ? AND source = CAST(? AS TEXT) AND id NOT IN ({marks})",
        (image, name, *captions),
    )
    connection.execute(f"UPDATE captions SET source = CAST(? AS TEXT) WHERE id IN ({marks})", (name, *captions))


def _read(folder: str, sidecar: _Sidecar, ledgers: dict[str, Ledger]) -> tuple[list[tuple[str, bool]], Sequence[str]]:
    """The captions of a file, and whether a person wrote each; the keywords of a packet, or those of `captune tag`."""
    path = Path(folder, sidecar.path)
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError:
        return [], ()
    if path.suffix == _PACKET:
        marks = [(mark.caption, False) for mark in existing_marks(b"", data)]
        return [*((text, True) for text in existing_texts(b"", data)), *marks], existing_keywords(b"", data).keywords()
    if str(path.parent) not in ledgers:
        ledgers[str(path.parent)] = Ledger(path.parent / LEDGER)
    ledger = ledgers[str(path.parent)]
    lines, keywords = split_keywords(decoded(data), ledger, path.name)
    return [(caption, not ledger.has(path.name, caption)) for caption in captions_in("".join(lines))], keywords


def _take_in(connection: sqlite3.Connection, sidecar: _Sidecar, captions: Sequence[tuple[str, bool]], now: str) -> int:
    """Bring the captions of an image in step with its file; how many are new."""
    file = encoded(sidecar.path)
    rows = connection.execute(
        "SELECT id, text, source IS CAST(? AS TEXT) AS own FROM captions WHERE image = ? AND current",
        (file, sidecar.image),
    ).fetchall()
    texts = [text for text, _ in captions]
    former = [row["id"] for row in rows if row["own"] and row["text"] not in texts]
    connection.executemany("UPDATE captions SET current = 0 WHERE id = ?", ((each,) for each in former))
    new = [(text, person) for text, person in captions if text not in {row["text"] for row in rows}]
    for number, (text, person) in enumerate(new):
        connection.execute(
            "INSERT INTO captions(image, text, written_by, status, written, source, of) "
            "VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?)",
            (
                sidecar.image, text, "person" if person else "model", "approved" if person else "draft", now, file,
                former[number] if number < len(former) else None,
            ),
        )  # fmt: skip
    connection.execute(
        "INSERT OR REPLACE INTO sources VALUES (CAST(? AS TEXT), ?, ?)", (file, sidecar.bytes, sidecar.modified)
    )
    return len(new)
