"""What the pictures of a job look like, in a few bytes each, and which look alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.data.bulk.names import looks_name
from captune.data.bulk.store import Store
from captune.data.duplicates import find_duplicates
from captune.data.verify import THUMB_BYTES

# Hash, thumbnail and digest of what the model sees of a picture, as `captune.data.duplicates` compares them.
LOOK_BYTES = 8 + THUMB_BYTES + 16
NO_LOOK = bytes(LOOK_BYTES)
# Looking for pairs takes about 700 bytes a picture.
MOST_COMPARED = 500_000


@dataclass(frozen=True)
class Alike:
    """Two pictures that look alike, as shard and place in it; `distance` in bits of 64, `exact`: the same pixels."""

    earlier: tuple[int, int]
    later: tuple[int, int]
    distance: int
    exact: bool

    def to_json(self, names: Mapping[tuple[int, int], str]) -> dict[str, Any]:
        return {
            "image": names[self.later],
            "duplicate_of": names[self.earlier],
            "distance": self.distance,
            "exact": self.exact,
        }


def read_looks(store: Store, number: int) -> list[bytes]:
    """The looks of a shard's pictures, in order; none where they are lost, which only costs duplicates."""
    try:
        data = store.read(looks_name(number))
    except CaptuneError:
        return []
    return [data[at : at + LOOK_BYTES] for at in range(0, len(data), LOOK_BYTES)]


def find_alike(store: Store, numbers: Sequence[int], most: int = MOST_COMPARED) -> list[Alike] | None:
    """Pairs of pictures that look alike, of equal ones each with one other; None of more pictures than `most`."""
    looks = np.empty((0, LOOK_BYTES), np.uint8)
    places: list[tuple[int, int]] = []
    parts = []
    for number, part in _parts(store, numbers):
        there = np.flatnonzero(part.any(axis=1))
        parts.append(part[there])
        places += [(number, int(place)) for place in there]
        if len(places) > most:
            return None
    if parts:
        looks = np.concatenate(parts)
    ids = [f"{index:010d}" for index in range(len(places))]
    pairs = find_duplicates(
        ids,
        ids,  # any two may be a pair
        np.ascontiguousarray(looks[:, :8]).view(">u8").ravel().astype(np.uint64),
        looks[:, 8 : 8 + THUMB_BYTES],
        [row.tobytes().hex() for row in looks[:, 8 + THUMB_BYTES :]],
    )
    found = ((int(pair.a), int(pair.b), pair) for pair in pairs)
    alike = [Alike(places[a], places[b], pair.distance, pair.exact) for a, b, pair in found]
    return sorted(alike, key=lambda pair: (pair.later, pair.earlier))


def _parts(store: Store, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    for number in numbers:
        looks = read_looks(store, number)
        if looks:
            yield number, np.frombuffer(b"".join(looks), np.uint8).reshape(-1, LOOK_BYTES)
