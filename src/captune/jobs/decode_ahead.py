"""Images of input shards decoded in processes, in order, ahead of the model and across shards."""

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np

from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.stores.files import Fetch, Turns
from captune.datasets.sources.input_shards import ImageSource, InputShard, Unreadable, read_images
from captune.images.decode_worker import command
from captune.images.duplicates import NO_FINGERPRINT
from captune.images.preprocessing import Preprocessing
from captune.images.workers import TIMEOUT_SECONDS, ProcessPool, Send, cores

# Waiting for the network takes no core.
_CONCURRENT_FETCHES = 16


@dataclass(frozen=True)
class ShardTask:
    """An input shard and its number; `rows` are those of an earlier run, of which only some are captioned again.

    These are the failed, with `flagged` also those with flags that no person corrected.
    """

    number: int
    source: InputShard
    rows: tuple[CaptionRow, ...] = ()
    flagged: bool = False

    def captions(self, index: int) -> bool:
        """Whether an image of the shard is captioned."""
        if not self.rows:
            return True
        row = self.rows[index] if index < len(self.rows) else None
        return row is not None and (
            row.status == "error" or (self.flagged and bool(row.flags) and not row.is_corrected)
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image's pixels (3, size, size), uint8, and its fingerprint (see `captune.images.duplicates`).

    `known` has the values of fields that its file says. Or None and the reason, with its `kind` as in `ImageError`.
    """

    pixels: np.ndarray | None
    reason: str = ""
    kind: str = ""
    fingerprint: bytes = NO_FINGERPRINT
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pending:
    index: int
    source: ImageSource
    decoded: Future[Decoded]


@dataclass(frozen=True, slots=True)
class _EndOfShard:
    """No more images of a shard follow."""


_Item = ShardTask | _Pending | _EndOfShard | None  # None: no more shards follow


class DecodeAhead:
    """Shards with their images decoded, in a `with` block.

    One thread reads the input shards, others fetch remote images, `workers` processes (0: one a core) decode, and
    at most `ahead` images wait for the model. An image that crashes its decoder or takes more than `timeout` seconds
    fails alone. `fields` are what is read of images besides (`images.metadata.fields`). Where `tasks` may block,
    `stop` ends it. `read` gives the images of an input shard, `worker` is the command of a decoder.
    """

    def __init__(
        self,
        tasks: Iterable[ShardTask],
        preprocessing: Preprocessing,
        *,
        workers: int = 0,
        max_pixels: int,
        ahead: int,
        fingerprints: bool = True,
        fields: Collection[str] = (),
        timeout: float = TIMEOUT_SECONDS,
        stop: Callable[[], None] = lambda: None,
        read: Callable[[InputShard], Iterable[ImageSource]] = read_images,
        worker: Sequence[str] = (),
    ) -> None:
        worker = worker or command(square=preprocessing, max_pixels=max_pixels, fingerprints=fingerprints)
        self._fields = sorted(fields)
        self._tasks, self._stop, self._read_images = tasks, stop, read
        self._decoders = ProcessPool(worker, workers or cores(), timeout=timeout)
        self._ready: queue.Queue[_Item] = queue.Queue(max(ahead, 2 * self._decoders.count))
        self._closed = threading.Event()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="captune-reader")
        self._fetchers = ThreadPoolExecutor(_CONCURRENT_FETCHES, thread_name_prefix="captune-fetch")
        self._turns = Turns(self._decoders.count)

    def __enter__(self) -> Self:
        self._decoders.__enter__()
        self._reading = self._reader.submit(self._read)
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        self._stop()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.__exit__()
        self._reader.shutdown(wait=True)
        self._fetchers.shutdown(wait=True)

    def shards(self) -> Iterator[tuple[ShardTask, Iterator[tuple[int, ImageSource, Decoded]]]]:
        """Each task with the index, source and pixels of the images to caption; take them all before the next task.

        Where an input shard cannot be read (on), its last image is an unreadable one with the shard's name.
        """
        while (item := self._ready.get()) is not None:
            assert isinstance(item, ShardTask)
            yield item, self._images()
        self._reading.result()

    def _images(self) -> Iterator[tuple[int, ImageSource, Decoded]]:
        while isinstance(item := self._ready.get(), _Pending):
            yield item.index, item.source, item.decoded.result()
        if item is None:
            self._reading.result()  # raises what stopped the reader

    def _read(self) -> None:
        try:
            for task in self._tasks:
                self._put(task)
                self._read_shard(task)
                self._put(_EndOfShard())
                if self._closed.is_set():
                    return
        finally:
            self._put(None)

    def _read_shard(self, task: ShardTask) -> None:
        index = 0
        try:
            for index, source in enumerate(self._read_images(task.source)):
                if task.captions(index):
                    self._submit(index, source)
                if self._closed.is_set():
                    return
        except CaptuneError as error:
            self._submit(index + 1, ImageSource(task.source.location, Unreadable(error)))

    def _submit(self, index: int, image: ImageSource) -> None:
        source = image.source
        if isinstance(source, (str, bytes)):
            decoded = self._decoders.submit(partial(self._decode, image.name, source))
        else:
            decoded = self._fetchers.submit(self._fetch, image.name, source)
        self._put(_Pending(index, image, decoded))

    def _fetch(self, name: str, source: Callable[[], bytes]) -> Decoded:
        """Fetch and decode. No more images than are fetched at once are in memory; a slow one blocks no decoder."""
        with self._turns.one() as grown:
            try:
                data = source(grown, self._closed.is_set) if isinstance(source, Fetch) else source()
            except CaptuneError as error:
                reason = getattr(error, "reason", "") or error.message.removeprefix(f"{name}: ")
                return Decoded(None, reason, getattr(error, "kind", "missing"))
            return self._decoders.submit(partial(self._decode, name, data)).result()

    def _put(self, item: _Item) -> None:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def _decode(self, name: str, data: str | bytes, send: Send) -> Decoded:
        request: dict[str, Any] = {"name": name, "fields": self._fields} if self._fields else {}
        reply = send({**request, "path": data}, b"") if isinstance(data, str) else send(request, data)
        fields = reply.fields
        if "reason" in fields:
            return Decoded(None, str(fields["reason"]), str(fields["kind"]))
        pixels = np.frombuffer(reply.attachment, np.uint8).reshape(fields["shape"])
        known = fields.get("known", {})
        if "hash" not in fields:
            return Decoded(pixels, known=known)
        fingerprint = bytes.fromhex(fields["hash"] + fields["thumb"] + fields["digest"])
        return Decoded(pixels, fingerprint=fingerprint, known=known)
