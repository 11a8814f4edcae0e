"""What people wrote in a library as prepared data: train, val and a test part that no round ever learns from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.records import ImageRecord
from captune.datasets.prepared import SplitCount, staged, write_splits
from captune.images.duplicates import find_duplicates
from captune.library.database import Database

# Shares of the images, by a digest of their contents: the same in every round, whatever is added.
TEST, VAL = 0.2, 0.1
_WORDS = "c.current AND (c.written_by = 'person' OR c.status = 'approved') AND c.status != 'rejected'"
_LEARNED = (
    "SELECT i.id, i.path, i.digest, i.hash, i.thumb, p.part FROM images i LEFT JOIN parts p ON p.image = i.id "
    "WHERE i.gone IS NULL AND i.problem IS NULL "
    f"AND EXISTS (SELECT 1 FROM captions c WHERE c.image = i.id AND {_WORDS}) ORDER BY i.path"
)


def assign_parts(database: Database) -> None:
    """Give each image that people wrote for its part, where it has none; near-duplicates have the same."""
    with database.write() as connection:
        rows = connection.execute(_LEARNED).fetchall()
        if not any(row["part"] is None for row in rows):
            return
        ids = [str(row["id"]) for row in rows]
        hashes = np.array([row["hash"] for row in rows], np.int64).view(np.uint64)
        thumbs = np.frombuffer(b"".join(row["thumb"] for row in rows), np.uint8).reshape(len(rows), -1)
        group = {each: each for each in ids}
        # Each image is a split of its own: every pair is one across splits.
        for pair in find_duplicates(ids, ids, hashes, thumbs, [row["digest"] for row in rows]):
            first, second = _first(group, pair.a), _first(group, pair.b)
            group[max(first, second, key=int)] = min(first, second, key=int)
        known: dict[str, str] = {}
        for each, row in zip(ids, rows, strict=True):
            if row["part"] is not None:
                known.setdefault(_first(group, each), row["part"])
        digests = dict(zip(ids, (row["digest"] for row in rows), strict=True))
        connection.executemany(
            "INSERT INTO parts VALUES (?, ?)",
            [
                (row["id"], known.get(first := _first(group, each)) or part_of(digests[first]))
                for each, row in zip(ids, rows, strict=True)
                if row["part"] is None
            ],
        )


def part_of(digest: str) -> str:
    """The part of an image by the digest of its contents."""
    share = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8], "big") / 2**64
    return "test" if share < TEST else "val" if share < TEST + VAL else "train"


def write_data(database: Database, folder: Path, out: Path) -> dict[str, SplitCount]:
    """Write what people wrote as prepared data into `out`, with the images where they lie; images by part.

    Raises `CaptuneError` where a part would be empty: how many images people wrote for is in it.
    """
    assign_parts(database)
    connection = database.connection
    splits: dict[str, list[ImageRecord]] = {"train": [], "val": [], "test": []}
    contents: dict[str, str] = {}
    for row in connection.execute(_LEARNED).fetchall():
        captions = connection.execute(
            f"SELECT c.text FROM captions c WHERE c.image = ? AND {_WORDS} ORDER BY c.id", (row["id"],)
        )
        path = os.path.abspath(folder / row["path"])
        texts = tuple(dict.fromkeys(caption["text"] for caption in captions))
        splits[row["part"]].append(ImageRecord(row["path"], path, texts, split=row["part"]))
        contents[row["path"]] = row["digest"]
    images = len(contents)
    empty = [name for name, records in splits.items() if not records]
    if empty:
        raise CaptuneError(
            f"People wrote or approved captions of {images:,} images; of these none is for {' and '.join(empty)}.",
            "Correct or approve some more: about 50 images begin to tell anything (captune edit FOLDER).",
        )
    with staged(out) as stage:
        facts = {"source": str(folder), "format": "library", "split": "library", "bad": 0}
        counts, _ = write_splits(stage, splits, contents, facts, base=out)
    return counts


def _first(group: dict[str, str], each: str) -> str:
    """The first image of a group."""
    while group[each] != each:
        group[each] = group[group[each]]
        each = group[each]
    return each
