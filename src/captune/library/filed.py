"""Captions in files, those of captune and of other programs, taken over into a library."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captune.captions.provenance import A_PERSONS
from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.progress import SILENT, Progress
from captune.evaluation.pairing import read_results, stem
from captune.evaluation.review import rows_of
from captune.library.database import Database, day_as_time, encoded

# Images between two commits.
_STEP = 1024
PERSON = "person"


@dataclass(frozen=True)
class FiledReport:
    """What became of the captions of a file: `new` ones, `completed` (they stood without their model), `known`.

    `without_image` are images of the file that the library does not have, or several of that name; `unusable` are
    images and places of the file without a caption, with the reason.
    """

    file: str
    new: int
    completed: int
    known: int
    without_image: tuple[str, ...]
    unusable: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"without_image": list(self.without_image)}

    def sentence(self) -> str:
        """The counts in words, with an example of what could not be taken over."""
        counts = {"new": self.new, "completed": self.completed, "known": self.known}
        text = f"{self.file}: " + ", ".join(
            f"{count:,} {name}" for name, count in counts.items() if count or name == "new"
        )
        if self.without_image:
            text += (
                f", {len(self.without_image):,} whose name is that of no image, or of several: {self.without_image[0]}"
            )
        if self.unusable:
            where, reason = next(iter(self.unusable.items()))
            text += f", {len(self.unusable):,} without a caption: {where}: {reason}"
        return text


def add_filed(
    database: Database, folder: str, file: str, *, written_by: str = PERSON, now: str, progress: Progress = SILENT
) -> FiledReport:
    """Take over the captions of a file, a job's folder or a data set, as `captune score` reads them.

    Rows that do not say who wrote them are by a person, or by the model `written_by`. An image is told by its path from
    the library's folder, from the file's or from here, else by a part of it or by its name, where just one image has
    it. A caption that the image has or had already is not taken again. Raises `CaptuneError` for a file in which
    nothing names an image.
    """
    with progress.task(f"Reading {file}"):
        results = read_results(file, "captions")
        if results.numbered:
            raise CaptuneError(
                f"{file}: no line names its image.", "Write image<TAB>caption on every line, or a column 'image'."
            )
        rows = rows_of(results)
    images = _Images(database, folder, Path(file), [row.image for row in rows])
    counts: Counter[str] = Counter()
    without: list[str] = []
    unusable: dict[str, str] = {}
    with progress.task("Taking over captions", len(rows)) as task:
        for start in range(0, len(rows), _STEP):
            some = rows[start : start + _STEP]
            with database.write() as connection:
                for row in some:
                    image = images.of(row.image)
                    texts = [caption for caption in row.captions if caption.text.strip()]
                    if row.status == "error" or not texts:
                        unusable[row.image] = row.error or "it has no words"
                    elif image is None:
                        without.append(row.image)
                    else:
                        counts += take_in_row(connection, image, row, _source(folder, file), written_by, now)
            task.advance(len(some))
    return FiledReport(file, counts["new"], counts["completed"], counts["known"], tuple(without), unusable)


def take_in_row(
    connection: sqlite3.Connection, image: int, row: CaptionRow, source: bytes, written_by: str, now: str
) -> Counter[str]:
    """Take over the captions of a row for an image: how many are `new`, `completed`, `known`."""
    return Counter(_take_in(connection, image, filed, source) for filed in _filed(row, written_by, now))


@dataclass(frozen=True, slots=True)
class _Filed:
    """A caption as a row of the table has it."""

    text: str
    written_by: str
    model: str
    provenance: str
    confidence: float | None
    flags: str
    written: str


def _filed(row: CaptionRow, written_by: str, now: str) -> Iterator[_Filed]:
    """The captions of a row; confidence and flags are of the first one, as long as a model's words stand there."""
    for number, caption in enumerate(row.captions):
        if not caption.text.strip():
            continue
        found = row.provenance.for_caption(caption) if row.provenance is not None else None
        if found is None and (written_by != PERSON or math.isfinite(caption.confidence)):
            yield _Filed(
                caption.text, "model", "" if written_by == PERSON else written_by, "{}", *_judged(row, number), now
            )
        elif found is None or found.written_by == "person" or found == A_PERSONS:
            yield _Filed(caption.text, "person", "", "{}", None, "", now)
        else:
            provenance = json.dumps(found.to_json())
            written = day_as_time(found.date) if found.date else now
            yield _Filed(caption.text, "model", found.model, provenance, *_judged(row, number), written)


def _judged(row: CaptionRow, number: int) -> tuple[float | None, str]:
    confidence = row.captions[number].confidence
    if number or not row.captions[0].text.strip():
        return None, ""
    return confidence if math.isfinite(confidence) else None, " ".join(row.flags or ())


def _take_in(connection: sqlite3.Connection, image: int, filed: _Filed, source: bytes) -> str:
    """Add a caption to those of an image, unless it has or had it; says which."""
    rows = connection.execute(
        "SELECT id, written_by, model FROM captions WHERE image = ? AND text = ?", (image, filed.text)
    ).fetchall()
    if any(
        row["written_by"] == "person" or row["model"] == filed.model or filed.written_by == "person" for row in rows
    ):
        return "known"
    nameless = next((row["id"] for row in rows if not row["model"]), None)
    values = (filed.model, filed.provenance, filed.confidence, filed.flags, filed.written)
    if nameless is not None:
        connection.execute(
            "UPDATE captions SET model = ?, provenance = ?, confidence = ?, flags = ?, written = ? WHERE id = ?",
            (*values, nameless),
        )
        return "completed"
    connection.execute(
        "INSERT INTO captions(image, text, written_by, status, source, model, provenance, confidence, flags, written) "
        "VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?)",
        (image, filed.text, filed.written_by, "approved" if filed.written_by == "person" else "draft", source, *values),
    )
    return "new"


def _source(folder: str, file: str) -> bytes:
    """The path of a file as the library has it: from its folder, or whole where it lies elsewhere."""
    path, top = os.path.realpath(file), os.path.realpath(folder)
    return encoded(os.path.relpath(path, top).replace(os.sep, "/") if path.startswith(top + os.sep) else path)


class _Images:
    """Which image of a library a name in a file means."""

    def __init__(self, database: Database, folder: str, file: Path, names: Sequence[str]) -> None:
        self.folder = os.path.realpath(folder)
        self._near = (file if file.is_dir() else file.parent, Path())
        self._ids: dict[str, int] = {}
        self._by_stem: dict[str, list[str]] = {}
        wanted = Counter(map(stem, dict.fromkeys(names)))
        self._once = {name for name, count in wanted.items() if count == 1}
        for row in database.connection.execute("SELECT id, path FROM images WHERE gone IS NULL ORDER BY path"):
            name = stem(row["path"])
            if name in wanted:
                self._ids[row["path"]] = row["id"]
                self._by_stem.setdefault(name, []).append(row["path"])

    def of(self, name: str) -> int | None:
        """The number of an image; None where none is meant, or not just one."""
        plain = os.path.normpath(name).replace("\\", "/")
        places = [plain, *(self._within(near / name) for near in self._near)]
        for place in places:
            if place in self._ids:
                return self._ids[place]
        paths = self._by_stem.get(stem(name), [])
        same = [path for path in paths if _ends_with(plain, path) or _ends_with(path, plain)]
        if len(same) != 1 and stem(name) in self._once:
            same = paths
        return self._ids[same[0]] if len(same) == 1 else None

    def _within(self, path: Path) -> str:
        """A path from the library's folder on; links to folders are followed, the image itself is as it is named."""
        whole = os.path.join(os.path.realpath(path.parent), path.name)
        return os.path.relpath(whole, self.folder).replace(os.sep, "/")


def _ends_with(path: str, end: str) -> bool:
    """Whether a path ends with all of another one that has a folder in it."""
    return "/" in end and ("/" + path).endswith("/" + end.lstrip("/"))
