"""What people wrote in a library as prepared data: train, val and a test part that no round ever learns from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.records import ImageRecord
from captune.core.wording import counted, listed
from captune.datasets.prepared import SplitCount, staged, write_splits
from captune.library.database import Database
from captune.library.duplicates import first_alike

# Shares of the images, by a digest of their contents: the same in every round, whatever is added.
TEST, VAL = 0.2, 0.1
_PARTS = {"train": "training", "val": "validation", "test": "the test"}
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
        first = first_alike((row["id"], row["hash"], row["thumb"], row["digest"]) for row in rows)
        known: dict[int, str] = {}
        for row in rows:
            if row["part"] is not None:
                known.setdefault(first[row["id"]], row["part"])
        digests = {row["id"]: row["digest"] for row in rows}
        connection.executemany(
            "INSERT INTO parts VALUES (?, ?)",
            [
                (row["id"], known.get(first[row["id"]]) or part_of(digests[first[row["id"]]]))
                for row in rows
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
        there = f"There are captions that people wrote or approved for {counted(images, 'image')}"
        raise CaptuneError(
            f"{there}: none is left for {listed(_PARTS[name] for name in empty)}." if images else f"{there}.",
            f"Correct or approve some more, about 50 images to begin with: {database.command('edit')}",
        )
    with staged(out) as stage:
        facts = {"source": str(folder), "format": "library", "split": "library", "bad": 0}
        counts, _ = write_splits(stage, splits, contents, facts, base=out)
    return counts
