"""Duplicates: the same or nearly the same image in two splits, or twice in a job."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.stores import fingerprints_name
from captune.core.stores.local import Store
from captune.images.verify import THUMB_BYTES

NEAR_BITS = 2
# How far two thumbnails of the same photo may be apart, in grey levels: saved again, scaled, but
# not another photo of the same place, nor the same shape in another colour.
_MEAN_LEVELS = 6.0
_MOST_LEVELS = 32
# An image whose thumbnail varies less than this shows nothing that could be recognised again.
_FLAT_LEVELS = 12
_BANDS = ((0, 21), (21, 21), (42, 22))
_CROWD = 256
_BLOCK = 1 << 20
_MOST_PAIRS = 100_000_000


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two images by their ids, of different splits; `distance` is in bits of a 64-bit dHash.

    `exact` means that the files are equal byte for byte.
    """

    a: str
    split_a: str
    b: str
    split_b: str
    distance: int
    exact: bool


def find_duplicates(
    ids: Sequence[str],
    splits: Sequence[str],
    hashes: np.ndarray,
    thumbs: np.ndarray,
    digests: Sequence[str],
    *,
    bits: int = NEAR_BITS,
) -> list[DuplicatePair]:
    """Pairs of images that are the same or nearly the same and lie in different splits.

    `hashes` is uint64 (n,), `thumbs` uint8 (n, 192), the rest have n entries. Two images
    are near when their hashes differ in at most `bits` (at most 2) bits and their thumbnails
    agree; drawn images share hashes and are told apart by the thumbnails, and flat ones count
    only when their files are equal. Of many copies each is listed with one partner, so that
    n copies give fewer than n pairs.
    """
    # Equal images first become one, so that a thousand copies are not half a million pairs.
    flat = (thumbs.max(axis=1) - thumbs.min(axis=1) if len(thumbs) else np.zeros(0)) < _FLAT_LEVELS
    groups = _groups(hashes, thumbs, digests, flat)
    pairs = [pair for group in groups for pair in _within(group, ids, splits, digests)]
    groups = [group for group in groups if not flat[group[0]]]
    firsts = np.array([group[0] for group in groups], dtype=np.int64)
    if len(firsts) < 2:
        return pairs
    for left, right in _candidates(hashes[firsts], thumbs[firsts], bits):
        for i, j in zip(left.tolist(), right.tolist(), strict=True):
            apart = _across(groups[i], groups[j], splits)
            if apart is not None:
                distance = int(np.bitwise_count(hashes[apart[0]] ^ hashes[apart[1]]))
                pairs.append(_pair(*apart, ids, splits, distance, exact=False))
    return sorted(pairs, key=lambda pair: (not pair.exact, pair.distance, pair.a, pair.b))


def _groups(hashes: np.ndarray, thumbs: np.ndarray, digests: Sequence[str], flat: np.ndarray) -> list[list[int]]:
    """Indices of images that are equal: in bytes, or (where not flat) in hash and thumbnail."""
    by_digest: dict[str, list[int]] = {}
    by_look: dict[int, list[int]] = {}
    groups = []
    for index, digest in enumerate(digests):
        look = hash((int(hashes[index]), index if flat[index] else thumbs[index].tobytes()))
        group = by_digest.get(digest) or by_look.get(look)
        if group is None:
            group = []
            groups.append(group)
        group.append(index)
        by_digest.setdefault(digest, group)
        by_look.setdefault(look, group)
    return groups


def _within(
    group: list[int], ids: Sequence[str], splits: Sequence[str], digests: Sequence[str]
) -> Iterator[DuplicatePair]:
    """Every member of a group of equal images with one partner of another split, if there is any."""
    first = group[0]
    other = next((i for i in group if splits[i] != splits[first]), None)
    if other is not None:
        for index in group[1:]:
            partner = first if splits[index] != splits[first] else other
            yield _pair(partner, index, ids, splits, 0, exact=digests[partner] == digests[index])


def _across(left: list[int], right: list[int], splits: Sequence[str]) -> tuple[int, int] | None:
    """One image of each group such that their splits differ."""
    for j in right:
        if splits[j] != splits[left[0]]:
            return left[0], j
    for i in left:
        if splits[i] != splits[right[0]]:
            return i, right[0]
    return None


def _pair(a: int, b: int, ids: Sequence[str], splits: Sequence[str], distance: int, *, exact: bool) -> DuplicatePair:
    a, b = min(a, b), max(a, b)
    return DuplicatePair(ids[a], splits[a], ids[b], splits[b], distance, exact)


def _candidates(hashes: np.ndarray, thumbs: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs (i < j) whose hashes and thumbnails are near; each once.

    Two hashes that differ in at most two bits agree in at least one of three bands of bits,
    so only images that share a band are compared.
    """
    for number, (shift, width) in enumerate(_BANDS):
        keys = (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.argsort(keys, kind="stable")
        for left, right in _sharing(keys[order], order, thumbs):
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= bits
            left, right = left[near], right[near]
            for earlier_shift, earlier_width in _BANDS[:number]:  # those were found there already
                mask = np.uint64(((1 << earlier_width) - 1) << earlier_shift)
                fresh = ((hashes[left] ^ hashes[right]) & mask) != 0
                left, right = left[fresh], right[fresh]
            same = _agree(thumbs, left, right)
            if same.any():
                yield np.minimum(left, right)[same], np.maximum(left, right)[same]


def _sharing(keys: np.ndarray, order: np.ndarray, thumbs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs among equal keys (which come sorted), in blocks; crowds are first divided by thumbnail."""
    edges = np.flatnonzero(np.diff(keys)) + 1
    starts = np.concatenate(([0], edges))
    sizes = np.diff(np.concatenate((starts, [len(keys)])))
    for size in np.unique(sizes[(sizes > 1) & (sizes <= _CROWD)]):
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        a, b = np.triu_indices(size, 1)
        step = max(1, _BLOCK // len(a))
        for at in range(0, len(members), step):
            block = members[at : at + step]
            yield block[:, a].ravel(), block[:, b].ravel()
    for start, size in zip(starts[sizes > _CROWD], sizes[sizes > _CROWD], strict=True):
        yield from _in_crowd(order[start : start + size], thumbs)


def _in_crowd(members: np.ndarray, thumbs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a crowd of images with one band in common, nearest in mean colour first.

    Sorted by the mean of the thumbnail, an image can only agree with followers at most
    `_MEAN_LEVELS` away. The work is bounded: in a crowd of more than ten thousand only the
    nearest are compared.
    """
    means = thumbs[members].mean(axis=1)
    order = np.argsort(means, kind="stable")
    members, means = members[order], means[order]
    ends = np.searchsorted(means, means + _MEAN_LEVELS, side="right")
    farthest = int((ends - np.arange(len(members))).max())
    for offset in range(1, min(farthest, max(_CROWD, _MOST_PAIRS // len(members)))):
        at = np.flatnonzero(np.arange(len(members)) + offset < ends)
        yield members[at], members[at + offset]


def _agree(thumbs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    agree = np.zeros(len(left), dtype=bool)
    for at in range(0, len(left), 100_000):
        part = slice(at, at + 100_000)
        apart = np.abs(thumbs[left[part]].astype(np.int16) - thumbs[right[part]])
        agree[part] = (apart.mean(axis=1) <= _MEAN_LEVELS) & (apart.max(axis=1) <= _MOST_LEVELS)
    return agree


def count_by_splits(pairs: Sequence[DuplicatePair]) -> dict[str, int]:
    """How many pairs join two splits, by their names ("test and train")."""
    return dict(Counter(" and ".join(sorted((pair.split_a, pair.split_b))) for pair in pairs))


# Hash, thumbnail and digest of what the model sees of an image, as `captune.images.duplicates` compares them.
FINGERPRINT_BYTES = 8 + THUMB_BYTES + 16
NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)
# Looking for pairs takes about 700 bytes an image.
MAX_COMPARED = 500_000


@dataclass(frozen=True)
class DuplicateImages:
    """Two images that look alike, as shard and place in it; `distance` in bits of 64, `exact`: the same pixels."""

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
    """The looks of a shard's images, in order; none where they are lost, which only costs duplicates."""
    try:
        data = store.read(fingerprints_name(number))
    except CaptuneError:
        return []
    return [data[at : at + FINGERPRINT_BYTES] for at in range(0, len(data), FINGERPRINT_BYTES)]


def find_duplicate_images(
    store: Store, numbers: Sequence[int], most: int = MAX_COMPARED
) -> list[DuplicateImages] | None:
    """Pairs of images that look alike, of equal ones each with one other; None of more images than `most`."""
    images = np.empty((0, FINGERPRINT_BYTES), np.uint8)
    indices: list[tuple[int, int]] = []
    parts = []
    for number, part in _parts(store, numbers):
        there = np.flatnonzero(part.any(axis=1))
        parts.append(part[there])
        indices += [(number, int(index)) for index in there]
        if len(indices) > most:
            return None
    if parts:
        images = np.concatenate(parts)
    ids = [f"{index:010d}" for index in range(len(indices))]
    pairs = find_duplicates(
        ids,
        ids,  # any two may be a pair
        np.ascontiguousarray(images[:, :8]).view(">u8").ravel().astype(np.uint64),
        images[:, 8 : 8 + THUMB_BYTES],
        [row.tobytes().hex() for row in images[:, 8 + THUMB_BYTES :]],
    )
    found = ((int(pair.a), int(pair.b), pair) for pair in pairs)
    alike = [DuplicateImages(indices[a], indices[b], pair.distance, pair.exact) for a, b, pair in found]
    return sorted(alike, key=lambda pair: (pair.later, pair.earlier))


def _parts(store: Store, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    for number in numbers:
        images = read_fingerprints(store, number)
        if images:
            yield number, np.frombuffer(b"".join(images), np.uint8).reshape(-1, FINGERPRINT_BYTES)
