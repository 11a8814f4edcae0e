"""Pictures in Hugging Face data sets: a folder made by `save_to_disk`, or `hf:org/name[:split]` streamed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.bulk.cells import Table, picture_columns, picture_in
from captune.data.bulk.pieces import ImageSource, InputShard
from captune.data.formats.hub import column_names, explained, saved_splits, streamed_splits, validated

KIND = "datasets"
_HUB = "hf:"


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """Input shards of each split: rows of a saved set (from `start`), or files of a streamed set (number `start`)."""
    for split, data in _splits(location).items():
        _columns(data, location)
        if location.startswith(_HUB):
            for number in range(data.num_shards):
                yield InputShard(KIND, location, number, None, (split,))
        else:
            for start in range(0, len(data), shard_size):
                yield InputShard(KIND, location, start, min(shard_size, len(data) - start), (split,))


def read(shard: InputShard) -> Iterator[ImageSource]:
    """Rows are named `place/split#row`, those of a streamed set `hf:org/name/split#file-row`."""
    (split,) = shard.names
    on_hub = shard.location.startswith(_HUB)
    data = _splits(shard.location).get(split)
    if data is None:
        raise CaptuneError(f"{shard.location} has no split '{split}' any more.", "Start a new job for it.")
    base = shard.location.removesuffix(f":{split}") if on_hub else shard.location
    image, name = _columns(data, shard.location)
    where = "/".join(filter(None, (base, split)))
    if on_hub:
        rows = explained(iter(data.shard(data.num_shards, shard.start)), shard.location)
        prefix, first = f"{where}#{shard.start}-", 0
    else:
        assert shard.count is not None
        rows = iter(validated(data.select(range(shard.start, shard.start + shard.count)), shard.location))
        prefix, first = f"{where}#", shard.start
    table = Table(None if on_hub else f"{shard.location}/", shard.inside)
    for number, row in enumerate(rows, start=first):
        yield picture_in(f"{prefix}{number}", row[image], row.get(name) if name else None, table)


def _splits(location: str) -> dict[str, Any]:
    return _streamed(location.removeprefix(_HUB)) if location.startswith(_HUB) else saved_splits(Path(location))


@lru_cache(maxsize=4)
def _streamed(name: str) -> dict[str, Any]:
    """Opening a set on the Hub asks it for its files: once for a job, not for each input shard."""
    return streamed_splits(name)


def _columns(data: Any, location: str) -> tuple[str, str | None]:
    return picture_columns(*column_names(data), location)
