"""Input shards in, a model's pixels out: decoded in processes, in order, ahead of the model and across input shards."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from captune.core.errors import CaptuneError
from captune.data.bulk.looks import NO_FINGERPRINT
from captune.data.bulk.pieces import ImageSource, InputShard, Unreadable, read_images
from captune.data.bulk.remote import Fetch, Turns
from captune.data.pixels import Preprocessing
from captune.data.workers import TIMEOUT_SECONDS, ProcessPool, Send, cores
from captune.data.writers.row import CaptionRow
from captune.engine.decode_worker import command

# Waiting for the network takes no core.
_FETCHED_AT_ONCE = 16


@dataclass(frozen=True)
class ShardTask:
    """An input shard and its number; `rows` are those of an earlier run, of which only the failed are captioned."""

    number: int
    source: InputShard
    rows: tuple[CaptionRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture's pixels (3, size, size), uint8, and its look (see `captune.data.bulk.looks`).

    Or None and the reason, with its `kind` as in `ImageError`.
    """

    pixels: np.ndarray | None
    reason: str = ""
    kind: str = ""
    look: bytes = NO_FINGERPRINT


@dataclass(frozen=True, slots=True)
class _Given:
    index: int
    picture: ImageSource
    decoded: Future[Decoded]


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing more comes of an input shard."""


class DecodeAhead:
    """Shards with their pictures decoded, in a `with` block.

    A thread reads the input shards, others fetch what is elsewhere, `workers` processes (0: one a core) decode, and
    at most `ahead` pictures wait for the model. A picture that kills its decoder or hangs in it is lost, its
    neighbours are not. Where `shards` may keep its reader waiting, `stop` ends them.
    """

    def __init__(
        self,
        shards: Iterable[ShardTask],
        pixels: Preprocessing,
        *,
        workers: int = 0,
        max_pixels: int,
        ahead: int,
        fingerprints: bool = True,
        timeout: float = TIMEOUT_SECONDS,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        started = command(square=pixels, max_pixels=max_pixels, fingerprints=fingerprints)
        self._shards, self._stop = shards, stop
        self._side = pixels.size
        self._processes = ProcessPool(started, workers or cores(), timeout=timeout)
        self._ready: queue.Queue[ShardTask | _Given | _End | None] = queue.Queue(max(ahead, 2 * self._processes.count))
        self._left = threading.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="captune-reader")
        self._fetchers = ThreadPoolExecutor(_FETCHED_AT_ONCE, thread_name_prefix="captune-fetch")
        self._turns = Turns(self._processes.count)

    def __enter__(self) -> Self:
        self._processes.__enter__()
        self._reading = self._reader.submit(self._read)
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._stop()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._processes.__exit__()
        self._reader.shutdown(wait=True)
        self._fetchers.shutdown(wait=True)

    def shards(self) -> Iterator[tuple[ShardTask, Iterator[tuple[int, ImageSource, Decoded]]]]:
        """Each shard with place, picture and pixels of those to caption; they are all taken before the next shard.

        Where an input shard cannot be read (on), its last image is an unreadable one with the shard's name.
        """
        while (item := self._ready.get()) is not None:
            assert isinstance(item, ShardTask)
            yield item, self._pictures()
        self._reading.result()

    def _pictures(self) -> Iterator[tuple[int, ImageSource, Decoded]]:
        while isinstance(item := self._ready.get(), _Given):
            yield item.index, item.picture, item.decoded.result()
        if item is None:
            self._reading.result()  # it broke off and says why

    def _read(self) -> None:
        try:
            for shard in self._shards:
                self._put(shard)
                self._read_shard(shard)
                self._put(_End())
                if self._left.is_set():
                    return
        finally:
            self._put(None)

    def _read_shard(self, shard: ShardTask) -> None:
        again = {index for index, row in enumerate(shard.rows) if row.status == "error"} if shard.rows else None
        index = 0
        try:
            for index, picture in enumerate(read_images(shard.source)):
                if again is None or index in again:
                    self._submit(index, picture)
                if self._left.is_set():
                    return
        except CaptuneError as error:
            self._submit(index + 1, ImageSource(shard.source.location, Unreadable(error)))

    def _submit(self, index: int, picture: ImageSource) -> None:
        source = picture.source
        if isinstance(source, (str, bytes)):
            decoded = self._processes.submit(partial(self._decode, source))
        else:
            decoded = self._fetchers.submit(self._fetch, picture.name, source)
        self._put(_Given(index, picture, decoded))

    def _fetch(self, name: str, source: Callable[[], bytes]) -> Decoded:
        """Fetch and decode: as many images wait in memory as are fetched at once; a slow one holds up no process."""
        with self._turns.one() as grown:
            try:
                data = source(grown, self._left.is_set) if isinstance(source, Fetch) else source()
            except CaptuneError as error:
                reason = getattr(error, "reason", "") or error.message.removeprefix(f"{name}: ")
                return Decoded(None, reason, getattr(error, "kind", "missing"))
            return self._processes.submit(partial(self._decode, data)).result()

    def _put(self, item: ShardTask | _Given | _End | None) -> None:
        while not self._left.is_set():
            try:
                self._ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def _decode(self, data: str | bytes, ask: Send) -> Decoded:
        answer = ask({"path": data}, b"") if isinstance(data, str) else ask({}, data)
        said = answer.said
        if "reason" in said:
            return Decoded(None, str(said["reason"]), str(said["kind"]))
        pixels = np.frombuffer(answer.attachment, np.uint8).reshape(3, self._side, self._side)
        if "hash" not in said:
            return Decoded(pixels)
        return Decoded(pixels, look=bytes.fromhex(said["hash"] + said["thumb"] + said["digest"]))
