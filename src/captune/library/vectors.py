"""One vector an image for each embedder: fp16 in a file, mapped into memory, searched whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files import disk_error, sync_folder
from captune.images.workers import cores
from captune.library.database import Database

_ROWS_AT_ONCE = 16_384
# Vectors are many from so many times those that are wanted on.
_MANY = 8
_BYTES = np.dtype(np.float16).itemsize
# How far a dot product of two unit vectors in fp16 may be from the same in fp32, however it is summed.
_ROUNDING = 4e-3


@dataclass(frozen=True)
class Vectors:
    """The vectors of an embedder, fp16 (rows, size) and of length 1, and the image of each row; -1: of none any more.

    A search holds every one of them against the vector that is looked for.
    """

    images: np.ndarray
    rows: np.ndarray

    def meant(self, among: Sequence[int] | None = None) -> np.ndarray:
        """Which rows are of an image, and of one of those `among`: bool (rows,)."""
        if among is None:
            return self.images >= 0
        return np.isin(self.images, np.fromiter(among, np.int64, len(among)))

    def nearest(
        self, vector: np.ndarray, count: int, among: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the `count` images whose vectors are nearest to `vector` (size,), and their cosines, best first.

        With `among` it is those of these images.
        """
        meant = self.meant(among)
        count = min(count, int(np.count_nonzero(meant)))
        if not count:
            return self.images[:0], np.zeros(0, np.float32)
        rough = _products(self.rows, vector.astype(np.float16))
        rough[~meant] = -np.inf
        least = np.partition(rough, len(rough) - count)[len(rough) - count]
        candidates = np.flatnonzero(rough >= least - 2 * _ROUNDING)
        exact = np.concatenate(
            [
                self.rows[candidates[start : start + _ROWS_AT_ONCE]].astype(np.float32) @ vector.astype(np.float32)
                for start in range(0, len(candidates), _ROWS_AT_ONCE)
            ]
        )
        order = np.lexsort((self.images[candidates], -exact))[:count]
        return self.images[candidates[order]], exact[order]


def _products(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Dot products of fp16 rows (n, size) and a vector, fp32, rounded as the processor likes."""
    try:
        import simsimd
    except ImportError:
        found = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE].astype(np.float32)
            found[start : start + _ROWS_AT_ONCE] = part @ vector.astype(np.float32)
        return found

    def of_part(part: np.ndarray) -> np.ndarray:
        return np.asarray(simsimd.cdist(vector[None], part, "dot", threads=1), np.float32)[0]

    # In threads of our own: simsimd sets OpenMP's number of threads for whoever calls it, and so torch's.
    with ThreadPoolExecutor(cores()) as threads:
        return np.concatenate(list(threads.map(of_part, np.array_split(rows, min(cores(), len(rows))))))


class VectorFile:
    """The vectors of one embedder in a library: of the model of a `digest`, by its `name`, vectors of `size`."""

    def __init__(self, database: Database, name: str, digest: str, size: int) -> None:
        self.database, self.size = database, size
        key, query = (name, digest), "SELECT id, size FROM embedders WHERE name = ? AND digest = ?"
        row = database.connection.execute(query, key).fetchone()
        if row is None:
            with database.write() as connection:
                connection.execute("INSERT OR IGNORE INTO embedders(name, digest, size) VALUES (?, ?, ?)", (*key, size))
                row = connection.execute(query, key).fetchone()
        self.id = row["id"]
        if row["size"] != size:
            raise CaptuneError(
                f"{name} had vectors of {row['size']} numbers, now of {size}.", "Name its former version."
            )
        self.path = vectors_path(database, self.id)

    def missing(self) -> list[tuple[int, str, str]]:
        """Images that can be read and have no vector of their contents yet: id, path, digest of the contents."""
        rows = self.database.connection.execute(
            "SELECT i.id, i.path, i.digest FROM images i LEFT JOIN vectors v ON v.image = i.id AND v.embedder = ? "
            "WHERE i.gone IS NULL AND i.problem IS NULL AND v.digest IS NOT i.digest ORDER BY i.path",
            (self.id,),
        )
        return [(row["id"], row["path"], row["digest"]) for row in rows]

    def add(self, images: Sequence[int], vectors: np.ndarray, digests: Sequence[str] = ()) -> None:
        """Keep a vector (images, size) of length 1 for each image, on the disk before the database names it.

        `digests` are those of the contents that were embedded; by default what the library knows of the images now.
        What a process that was killed left in the file is written over. Raises `CaptuneError` where the file is
        shorter than it was.
        """
        if not len(images):
            return
        with self.database.write() as connection:
            (start,) = connection.execute("SELECT rows FROM embedders WHERE id = ?", (self.id,)).fetchone()
            map_rows(self.path, start, self.size)
            _write_at(self.path, start * self.size * _BYTES, vectors.astype(np.float16).tobytes())
            connection.execute("UPDATE embedders SET rows = ? WHERE id = ?", (start + len(images), self.id))
            connection.executemany(
                "DELETE FROM vectors WHERE embedder = ? AND image = ?", ((self.id, i) for i in images)
            )
            connection.executemany(
                "INSERT INTO vectors SELECT ?, ?, id, coalesce(?, digest) FROM images WHERE id = ?",
                (
                    (self.id, start + number, digests[number] if digests else None, image)
                    for number, image in enumerate(images)
                ),
            )

    def vector_of(self, image: int) -> np.ndarray:
        """The vector of an image of the library, fp32 (size,); raises `CaptuneError` where it has none."""
        row = self.database.connection.execute(
            "SELECT v.row FROM vectors v JOIN images i ON i.id = v.image AND v.digest = i.digest "
            "WHERE v.embedder = ? AND v.image = ?",
            (self.id, image),
        ).fetchone()
        if row is None:
            hint = f"Make it: {self.database.command('library add', '--embed', 'MODEL')}"
            raise CaptuneError("This image has no vector yet.", hint)
        found: np.ndarray = map_rows(self.path, row["row"] + 1, self.size)[row["row"]].astype(np.float32)
        return found

    def nearest(
        self, vector: np.ndarray, count: int, among: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Vectors.nearest` of `read()`; of many vectors only the best are looked up in the database."""
        (total,) = self.database.connection.execute("SELECT rows FROM embedders WHERE id = ?", (self.id,)).fetchone()
        wanted = count
        if 0 < wanted * _MANY <= total:
            rows = map_rows(self.path, total, self.size)
            rough = _products(rows, vector.astype(np.float16))
        while 0 < wanted * _MANY <= total:
            least = np.partition(rough, total - wanted)[total - wanted]
            candidates = np.flatnonzero(rough >= least - 2 * _ROUNDING)
            best = Vectors(self._images(candidates), rows[candidates])
            if np.count_nonzero(best.meant(among) & (rough[candidates] >= least)) >= count:
                return best.nearest(vector, count, among)
            wanted *= 4
        return self.read().nearest(vector, count, among)

    def _images(self, rows: np.ndarray) -> np.ndarray:
        """The images that vectors are of, by their rows in the file; -1: of none any more."""
        found = self.database.connection.execute(
            "SELECT r.key, v.image FROM json_each(?) r CROSS JOIN vectors v ON v.embedder = ? AND v.row = r.value "
            "JOIN images i ON i.id = v.image WHERE i.gone IS NULL AND v.digest = i.digest",
            (json.dumps(rows.tolist()), self.id),
        )
        images = np.full(len(rows), -1, np.int64)
        for number, image in found:
            images[number] = image
        return images

    def read(self) -> Vectors:
        """All vectors of images that are there; raises `CaptuneError` where the file is shorter than it was."""
        found = self.database.connection.execute(
            "SELECT v.row, v.image FROM vectors v JOIN images i ON i.id = v.image "
            "WHERE v.embedder = ? AND i.gone IS NULL AND v.digest = i.digest ORDER BY v.row",
            (self.id,),
        ).fetchall()
        if not found:
            return Vectors(np.zeros(0, np.int64), np.zeros((0, self.size), np.float16))
        count = found[-1]["row"] + 1
        rows = map_rows(self.path, count, self.size)
        images = np.full(count, -1, np.int64)
        images[np.fromiter((row["row"] for row in found), np.int64, len(found))] = np.fromiter(
            (row["image"] for row in found), np.int64, len(found)
        )
        return Vectors(images, rows)


def vectors_path(database: Database, embedder: int) -> Path:
    """The file of an embedder's vectors."""
    return database.path.parent / "vectors" / f"{embedder}.f16"


def map_rows(path: Path, count: int, size: int) -> np.ndarray:
    """The first `count` rows of a file, (count, size), fp16; raises `CaptuneError` where it has fewer."""
    if not count:
        return np.zeros((0, size), np.float16)
    try:
        return np.asarray(np.memmap(path, np.float16, "r", shape=(count, size)))
    except (OSError, ValueError) as error:
        raise CaptuneError(
            f"Cannot read {path}, or it is cut off: {error}.",
            "Forget them by captune library check --repair, and add --embed MODEL again.",
        ) from None


def damaged_vectors(database: Database) -> dict[int, str]:
    """Embedders whose file is gone or shorter than it was, with what is wrong."""
    damaged = {}
    for row in database.connection.execute("SELECT id, size, rows FROM embedders").fetchall():
        try:
            map_rows(vectors_path(database, row["id"]), row["rows"], row["size"])
        except CaptuneError as error:
            damaged[int(row["id"])] = error.message
    return damaged


def forget_vectors(database: Database, embedders: Iterable[int]) -> None:
    """Forget the vectors of embedders: `captune library add FOLDER --embed MODEL` makes them anew."""
    with database.write() as connection:
        for embedder in embedders:
            connection.execute("DELETE FROM vectors WHERE embedder = ?", (embedder,))
            connection.execute("UPDATE embedders SET rows = 0 WHERE id = ?", (embedder,))


def _write_at(path: Path, offset: int, data: bytes) -> None:
    """Write into a file from `offset` on, and flush it to the disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with open(path, "w+b" if new else "r+b") as file:
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path) from error


def joined_by_rank(lists: Iterable[Sequence[int]], damping: int = 60) -> list[tuple[int, float]]:
    """Images of several lists, each best first, as one: the sum of 1 / (damping + rank) is an image's score.

    Reciprocal rank fusion, source: Cormack, Clarke, Büttcher, 2009.
    """
    scores: dict[int, float] = {}
    for each in lists:
        for rank, image in enumerate(each, start=1):
            scores[image] = scores.get(image, 0.0) + 1 / (damping + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
