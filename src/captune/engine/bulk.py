"""Input shards in, result shards out: each shard is whole when it appears, and needs no other.

The job of one machine and those of many run this: which input shards, and what becomes of them, is the
caller's affair. Decoding, the model and writing overlap; what runs the model is a function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.halving import Halving
from captune.core.records import Caption
from captune.data.bulk.looks import NO_FINGERPRINT, read_fingerprints
from captune.data.bulk.names import fingerprints_name
from captune.data.bulk.pieces import ImageSource
from captune.data.bulk.shards import ShardFormat, shard_name
from captune.data.bulk.store import Store
from captune.data.doubts import flags_of
from captune.data.images import MAX_PIXELS
from captune.data.pixels import Preprocessing
from captune.data.writers.row import CaptionRow
from captune.engine.decoding_ahead import DecodeAhead, Decoded, ShardTask

# Captions, the best first, of each picture of pixels (pictures, 3, size, size), uint8.
Say = Callable[[np.ndarray], list[list[Caption]]]
_BATCHES_AHEAD = 4
_SHARDS_TO_WRITE = 2
_LESS = "Free some, use --precision bf16, fewer --num-beams, or another --device; then run the same command again."


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is in its place: its number, rows done in this run, and those of them that failed."""

    number: int
    pictures: int
    failed: tuple[CaptionRow, ...]


@dataclass(frozen=True)
class ShardOptions:
    """How shards are captioned and written; the same for every shard of a job.

    `total` is the number of shards of the whole job, `language` the one that captions should be in.
    """

    shards: ShardFormat
    total: int
    batch_size: int = 8
    workers: int = 0
    max_pixels: int = MAX_PIXELS
    language: str | None = None
    fingerprints: bool = True


def caption_shards(
    say: Say,
    pixels: Preprocessing,
    work: Iterable[ShardTask],
    store: Store,
    manner: ShardOptions,
    *,
    advance: Callable[[int], None] = lambda pictures: None,
    check_missing: Callable[[], None] = lambda: None,
    written: Callable[[FinishedShard], None] = lambda finished: None,
    stop: Callable[[], None] = lambda: None,
) -> Generator[FinishedShard]:
    """Caption shards, and yield each when it is written.

    A picture that cannot be read, or has no room in memory by itself, is a row that says so.
    Batches never cross a shard, so that a shard depends on its input shard alone. `advance` hears of pictures
    as they are done; `check_missing` is called before a shard with pictures that are not there is
    written, and may raise. `written` hears of a shard as soon as it is in its place, in another thread; where
    `work` may keep its reader waiting, `stop` ends it. Raises `CaptuneError` where nothing can be
    written; shards that were yielded are in their place.
    """
    ahead = DecodeAhead(
        work,
        pixels,
        workers=manner.workers,
        max_pixels=manner.max_pixels,
        ahead=_BATCHES_AHEAD * manner.batch_size,
        fingerprints=manner.fingerprints,
        stop=stop,
    )
    writing: deque[Future[FinishedShard]] = deque()
    with ahead as decoding, ThreadPoolExecutor(1, thread_name_prefix="captune-writer") as writer:
        for shard, pictures in decoding.shards():
            rows: dict[int, _Row] = {}
            missing = False
            for index, row in _captioned(say, Halving(_LESS), pictures, manner):
                _check_same(shard, index, row.row)
                rows[index] = row
                missing |= row.missing
                advance(1)
            if missing:
                check_missing()
            writing.append(writer.submit(_write, shard, rows, store, manner, written))
            while writing and (writing[0].done() or len(writing) > _SHARDS_TO_WRITE):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()


@dataclass(frozen=True, slots=True)
class _Row:
    row: CaptionRow
    look: bytes = NO_FINGERPRINT
    missing: bool = False


def _captioned(
    say: Say, halving: Halving, pictures: Iterator[tuple[int, ImageSource, Decoded]], manner: ShardOptions
) -> Iterator[tuple[int, _Row]]:
    """A row for each picture with its place, in no order."""
    waiting: list[tuple[int, ImageSource, Decoded]] = []
    for index, picture, decoded in pictures:
        if decoded.pixels is None:
            yield index, _Row(_failed(picture, decoded.reason), missing=decoded.kind == "missing")
            continue
        waiting.append((index, picture, decoded))
        if len(waiting) == manner.batch_size:
            yield from _batch(say, halving, waiting, manner.language)
            waiting = []
    if waiting:
        yield from _batch(say, halving, waiting, manner.language)


def _batch(
    say: Say, halving: Halving, batch: list[tuple[int, ImageSource, Decoded]], language: str | None
) -> Iterator[tuple[int, _Row]]:
    seen = np.stack([decoded.pixels for _, _, decoded in batch if decoded.pixels is not None])
    # For the rest of the shard; the next one tries whole batches again.
    found = halving.results(len(seen), lambda start, end: say(seen[start:end]))
    for (index, picture, decoded), captions in zip(batch, found, strict=True):
        if captions is None:
            yield index, _Row(_failed(picture, "needs more memory than the model has left"))
            continue
        flags = tuple(flags_of(captions[0], language))
        yield index, _Row(CaptionRow(picture.name, tuple(captions), "ok", None, "", flags), decoded.look)


def _failed(picture: ImageSource, reason: str) -> CaptionRow:
    return CaptionRow(picture.name, (), "error", reason, "", ())


def _check_same(shard: ShardTask, index: int, row: CaptionRow) -> None:
    """That what is captioned again is what was captioned before."""
    if shard.rows and row.image == shard.source.location:
        raise CaptuneError(f"{row.image}: {row.error}", "Nothing was changed.")
    if shard.rows and (index >= len(shard.rows) or shard.rows[index].image != row.image):
        raise CaptuneError(
            f"The input has changed: it has {row.image} where another picture was.",
            "Put back what the job began with, or start it anew with --restart.",
        )


def _write(
    shard: ShardTask,
    rows: dict[int, _Row],
    store: Store,
    manner: ShardOptions,
    written: Callable[[FinishedShard], None],
) -> FinishedShard:
    new = [row for _, row in sorted(rows.items())]
    whole = list(shard.rows) or [row.row for row in new]
    if shard.rows:
        for index, row in rows.items():
            whole[index] = row.row
    if manner.fingerprints:
        looks = read_fingerprints(store, shard.number) if shard.rows else []
        if len(looks) != len(whole):
            looks = [NO_FINGERPRINT] * len(whole)
        for index, row in rows.items() if shard.rows else enumerate(new):
            looks[index] = row.look
        store.publish(fingerprints_name(shard.number), b"".join(looks))
    store.publish(shard_name(shard.number, manner.total, manner.shards.suffix), manner.shards.encode(whole))
    finished = FinishedShard(shard.number, len(rows), tuple(row for row in whole if row.status == "error"))
    written(finished)
    return finished
