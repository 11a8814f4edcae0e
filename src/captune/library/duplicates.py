"""Images of a library that are there twice: copies of a file, and images that look alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from captune.images.duplicates import find_duplicates
from captune.images.verify import THUMB_BYTES
from captune.library.listing import listed_ids
from captune.library.query import Condition

# Parameters of one query.
_MOST = 500
# Images that are read at a time.
_AT_ONCE = 10_000
_FINGERPRINTS = (
    f"SELECT i.id, coalesce(i.hash, 0), coalesce(i.thumb, zeroblob({THUMB_BYTES})), i.digest FROM images i "
    "WHERE i.gone IS NULL AND i.digest != ''"
)

_DETAILS = (
    "SELECT i.id, i.path, i.width, i.height, i.bytes, i.digest, i.hash, (SELECT c.text FROM captions c WHERE "
    "c.image = i.id AND c.current ORDER BY c.status = 'approved' DESC, c.id LIMIT 1) AS text FROM images i"
)


@dataclass(frozen=True, slots=True)
class DuplicateImage:
    """An image of a group, with its first caption (empty: none), pixels (None: it cannot be read) and bytes.

    `exact`: its file is that of the group's first image, byte for byte; `distance` is between both, in bits of a
    64-bit dHash.
    """

    image: int
    path: str
    caption: str
    width: int | None
    height: int | None
    bytes: int
    exact: bool
    distance: int

    def to_json(self) -> dict[str, Any]:
        names = ("path", "caption", "width", "height", "bytes", "exact", "distance")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Images of which each is a copy of another or looks like it; first the one with most pixels, then most bytes."""

    images: tuple[DuplicateImage, ...]

    @property
    def exact(self) -> bool:
        """Whether all are copies of one file."""
        return all(each.exact for each in self.images)

    def to_json(self) -> dict[str, Any]:
        return {"exact": self.exact, "images": [each.to_json() for each in self.images]}


def duplicate_groups(connection: sqlite3.Connection, words: str, condition: Condition) -> list[DuplicateGroup]:
    """Duplicates among the images that a condition is true of, and that have a caption with all the words (if any).

    Groups of copies come first. A kilobyte an image is in memory meanwhile.
    """
    all_meant = not words.strip() and not condition.clauses
    meant = None if all_meant else listed_ids(connection, words, condition)
    first = first_alike(_fingerprints(connection, meant))
    groups: dict[int, list[int]] = {}
    for image, other in first.items():
        if image != other:
            groups.setdefault(other, [other]).append(image)
    members = [image for group in groups.values() for image in group]
    details = {row["id"]: row for row in _rows(connection, f"{_DETAILS} WHERE", members)}
    found = [_group([details[image] for image in group]) for group in groups.values()]
    return sorted(found, key=lambda group: (not group.exact, group.images[0].path))


def first_alike(images: Iterable[tuple[int, int, bytes, str]]) -> dict[int, int]:
    """Of images (id, dHash as SQLite has it, thumbnail, digest) the first id of each one's group of duplicates.

    Those of a group are joined by pairs of `captune.images.duplicates`: two of them need not be alike themselves.
    """
    ids: list[int] = []
    digests: list[str] = []
    hashes, thumbs = [np.zeros(0, np.int64)], [np.zeros((0, THUMB_BYTES), np.uint8)]
    rest = iter(images)
    while some := list(islice(rest, _AT_ONCE)):
        ids += [image for image, _, _, _ in some]
        digests += [digest for _, _, _, digest in some]
        hashes.append(np.array([hash for _, hash, _, _ in some], np.int64))
        thumbs.append(np.frombuffer(b"".join(thumb for _, _, thumb, _ in some), np.uint8).reshape(len(some), -1))
    names = [str(image) for image in ids]
    first = {image: image for image in ids}
    # Each image is a split of its own: every pair is one across splits.
    for pair in find_duplicates(names, names, np.concatenate(hashes).view(np.uint64), np.concatenate(thumbs), digests):
        one, other = _root(first, int(pair.a)), _root(first, int(pair.b))
        first[max(one, other)] = min(one, other)
    return {image: _root(first, image) for image in ids}


def _root(first: dict[int, int], image: int) -> int:
    while first[image] != image:
        first[image] = first[first[image]]
        image = first[image]
    return image


def _fingerprints(
    connection: sqlite3.Connection, images: Sequence[int] | None
) -> Iterator[tuple[int, int, bytes, str]]:
    """Those of some images, or of all."""
    if images is None:
        yield from map(tuple, connection.execute(_FINGERPRINTS))
    else:
        yield from map(tuple, _rows(connection, f"{_FINGERPRINTS} AND", images))


def _rows(connection: sqlite3.Connection, query: str, images: Sequence[int]) -> Iterator[sqlite3.Row]:
    """The rows of a query, which ends where the condition that names the images begins."""
    for start in range(0, len(images), _MOST):
        some = images[start : start + _MOST]
        yield from connection.execute(f"{query} i.id IN ({', '.join('?' * len(some))})", some)


def _group(rows: list[sqlite3.Row]) -> DuplicateGroup:
    rows.sort(key=lambda row: (-(row["width"] or 0) * (row["height"] or 0), -row["bytes"], row["path"]))
    first = rows[0]
    return DuplicateGroup(
        tuple(
            DuplicateImage(
                row["id"], row["path"], row["text"] or "", row["width"], row["height"], row["bytes"],
                row["digest"] == first["digest"], (((row["hash"] or 0) ^ (first["hash"] or 0)) % (1 << 64)).bit_count(),
            )
            for row in rows
        )
    )  # fmt: skip
