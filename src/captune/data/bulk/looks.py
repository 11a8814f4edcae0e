"""What the pictures of a job look like, in a few bytes each, and which look alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.data.bulk.names import fingerprints_name
from captune.data.bulk.store import Store
from captune.data.duplicates import find_duplicates
from captune.data.verify import THUMB_BYTES

# Hash, thumbnail and digest of what the model sees of a picture, as `captune.data.duplicates` compares them.
FINGERPRINT_BYTES = 8 + THUMB_BYTES + 16
NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)
# Looking for pairs takes about 700 bytes a picture.
MAX_COMPARED = 500_000


@dataclass(frozen=True)
class DuplicateImages:
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


def read_fingerprints(store: Store, number: int) -> list[bytes]:
    """The looks of a shard's pictures, in order; none where they are lost, which only costs duplicates."""
    try:
        data = store.read(fingerprints_name(number))
    except CaptuneError:
        return []
    return [data[at : at + FINGERPRINT_BYTES] for at in range(0, len(data), FINGERPRINT_BYTES)]


def find_duplicate_images(
    store: Store, numbers: Sequence[int], most: int = MAX_COMPARED
) -> list[DuplicateImages] | None:
    """Pairs of pictures that look alike, of equal ones each with one other; None of more pictures than `most`."""
    looks = np.empty((0, FINGERPRINT_BYTES), np.uint8)
    indices: list[tuple[int, int]] = []
    parts = []
    for number, part in _parts(store, numbers):
        there = np.flatnonzero(part.any(axis=1))
        parts.append(part[there])
        indices += [(number, int(index)) for index in there]
        if len(indices) > most:
            return None
    if parts:
        looks = np.concatenate(parts)
    ids = [f"{index:010d}" for index in range(len(indices))]
    pairs = find_duplicates(
        ids,
        ids,  # any two may be a pair
        np.ascontiguousarray(looks[:, :8]).view(">u8").ravel().astype(np.uint64),
        looks[:, 8 : 8 + THUMB_BYTES],
        [row.tobytes().hex() for row in looks[:, 8 + THUMB_BYTES :]],
    )
    found = ((int(pair.a), int(pair.b), pair) for pair in pairs)
    alike = [DuplicateImages(indices[a], indices[b], pair.distance, pair.exact) for a, b, pair in found]
    return sorted(alike, key=lambda pair: (pair.later, pair.earlier))


def _parts(store: Store, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    for number in numbers:
        looks = read_fingerprints(store, number)
        if looks:
            yield number, np.frombuffer(b"".join(looks), np.uint8).reshape(-1, FINGERPRINT_BYTES)
