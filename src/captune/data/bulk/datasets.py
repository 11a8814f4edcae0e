"""Pictures in Hugging Face data sets: a folder made by `save_to_disk`, or `hf:org/name[:split]` streamed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.bulk.cells import Table, picture_columns, picture_in
from captune.data.bulk.pieces import Picture, Piece
from captune.data.formats.hub import column_names, explained, saved_splits, streamed_splits, validated

KIND = "datasets"
_HUB = "hf:"


def find(place: str, shard_size: int) -> Iterator[Piece]:
    """Pieces of each split: rows of a saved one (`start` is the first), whole files of a streamed one (its number)."""
    for split, data in _splits(place).items():
        _columns(data, place)
        if place.startswith(_HUB):
            for number in range(data.num_shards):
                yield Piece(KIND, place, number, None, (split,))
        else:
            for start in range(0, len(data), shard_size):
                yield Piece(KIND, place, start, min(shard_size, len(data) - start), (split,))


def read(piece: Piece) -> Iterator[Picture]:
    """Rows are named `place/split#row`, those of a streamed set `hf:org/name/split#file-row`."""
    (split,) = piece.names
    on_hub = piece.place.startswith(_HUB)
    data = _splits(piece.place).get(split)
    if data is None:
        raise CaptuneError(f"{piece.place} has no split '{split}' any more.", "Start a new job for it.")
    base = piece.place.removesuffix(f":{split}") if on_hub else piece.place
    image, name = _columns(data, piece.place)
    where = "/".join(filter(None, (base, split)))
    if on_hub:
        rows = explained(iter(data.shard(data.num_shards, piece.start)), piece.place)
        prefix, first = f"{where}#{piece.start}-", 0
    else:
        assert piece.count is not None
        rows = iter(validated(data.select(range(piece.start, piece.start + piece.count)), piece.place))
        prefix, first = f"{where}#", piece.start
    table = Table(None if on_hub else f"{piece.place}/", piece.inside)
    for number, row in enumerate(rows, start=first):
        yield picture_in(f"{prefix}{number}", row[image], row.get(name) if name else None, table)


def _splits(place: str) -> dict[str, Any]:
    return _streamed(place.removeprefix(_HUB)) if place.startswith(_HUB) else saved_splits(Path(place))


@lru_cache(maxsize=4)
def _streamed(name: str) -> dict[str, Any]:
    """Opening a set on the Hub asks it for its files: once for a job, not for each piece."""
    return streamed_splits(name)


def _columns(data: Any, place: str) -> tuple[str, str | None]:
    return picture_columns(*column_names(data), place)
