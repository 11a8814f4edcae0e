"""A worker of a job on a Ray cluster: a process on some node that has the model and captions shards given to it.

Nothing here imports ray: its actors are made of this class by `captune.engine.ray_pieces`.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from captune import __version__
from captune.core.errors import CaptuneError
from captune.data.bulk.names import MANIFEST
from captune.data.bulk.store import open_store
from captune.engine.bulk import FinishedShard, Say, ShardOptions, caption_shards
from captune.engine.decoding_ahead import ShardTask

if TYPE_CHECKING:
    from captune.data.pixels import Preprocessing

# A turn is answered when there is something to tell, at the latest after this.
_TURN_SECONDS = 1.0


class BatchCaptioner(NamedTuple):
    """A model that was loaded: how it captions pixels, and which pixels it wants."""

    say: Say
    pixels: Preprocessing


@dataclass(frozen=True)
class WorkerSpec:
    """What every worker of a job is told; it travels to other machines, so paths are absolute.

    `load` is a function of a module, or a partial of one. `manifest` are the bytes of the job's manifest in the
    store at `place`, `folder` is the working folder that names of pictures depend on, `pictures` are some
    that can be seen where the job was started, `check_there` raises `CaptuneError` where inputs are missing.
    """

    location: str
    manifest: bytes
    options: ShardOptions
    load: Callable[[], BatchCaptioner]
    check_there: Callable[[], None]
    folder: str | None = None
    pictures: tuple[str, ...] = ()
    captune: str = __version__


@dataclass(frozen=True)
class WorkerReady:
    """A worker has the model; `host` is its machine, `process` its number there."""

    host: str
    process: int


@dataclass(frozen=True)
class WorkerFailure:
    """A worker cannot do its work, and why; as in `CaptuneError`."""

    host: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class WorkerUpdate:
    """News of a turn: pictures done since the last one, and shards that are in their place; or why it is over."""

    pictures: int = 0
    finished: tuple[FinishedShard, ...] = ()
    failure: WorkerFailure | None = None


class Worker:
    """Made on a node, started there once, then given shards, several turns to each."""

    def __init__(self, spec: WorkerSpec, cores: int) -> None:
        options = spec.options
        self._spec = replace(spec, options=replace(options, workers=options.workers or cores))
        self._host = socket.gethostname()
        self._given: queue.SimpleQueue[ShardTask | None] = queue.SimpleQueue()
        self._news = threading.Condition()
        self._pictures = 0
        self._finished: list[FinishedShard] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="captune-shards")
        self._working: Future[None] | None = None

    def start(self) -> WorkerReady | WorkerFailure:
        """Look whether this machine sees what the job needs, and load the model."""
        try:
            self._check()
            self._speaker = self._spec.load()
        except CaptuneError as error:
            return WorkerFailure(self._host, error.message, error.hint)
        self._working = self._thread.submit(self._work)
        self._working.add_done_callback(lambda _: self._tell())
        return WorkerReady(self._host, os.getpid())

    def poll(self, shards: tuple[ShardTask, ...] = ()) -> WorkerUpdate:
        """Take shards, and tell what has happened since the last turn."""
        for shard in shards:
            self._given.put(shard)
        with self._news:
            if not (self._finished or self._over):
                self._news.wait(_TURN_SECONDS)
            pictures, finished = self._pictures, tuple(self._finished)
            self._pictures = 0
            self._finished.clear()
        return WorkerUpdate(pictures, finished, self._why() if self._over else None)

    @property
    def _over(self) -> bool:
        return self._working is not None and self._working.done()

    def _check(self) -> None:
        spec = self._spec
        if spec.captune != __version__:
            raise CaptuneError(
                f"It has captune {__version__}, the job was started with {spec.captune}.",
                "Install the same version on all nodes.",
            )
        if spec.folder is not None:
            try:
                os.chdir(spec.folder)
            except OSError as error:
                raise CaptuneError(
                    f"The working folder {spec.folder} is not there ({error.strerror}).",
                    "Share it with all nodes at the same path, or give absolute paths.",
                ) from None
        try:
            same = open_store(spec.location).read(MANIFEST) == spec.manifest
        except CaptuneError:
            same = False
        if not same:
            raise CaptuneError(
                f"The job in {spec.location} is not seen from there.",
                "Share that folder with all nodes at the same path, or put the job on object storage: --out s3://…",
            )
        spec.check_there()
        unseen = [picture for picture in spec.pictures if not os.path.exists(picture)]
        if unseen:
            raise CaptuneError(
                f"The picture {unseen[0]} is not there.", "Share the pictures with all nodes at the same path."
            )

    def _work(self) -> None:
        spec = self._spec
        work = caption_shards(
            self._speaker.say,
            self._speaker.pixels,
            iter(self._given.get, None),
            open_store(spec.location),
            spec.options,
            advance=self._advance,
            check_missing=spec.check_there,
            written=self._written,
            stop=lambda: self._given.put(None),
        )
        for _ in work:
            pass  # told already, when it was written

    def _advance(self, pictures: int) -> None:
        with self._news:
            self._pictures += pictures

    def _written(self, finished: FinishedShard) -> None:
        with self._news:
            self._finished.append(finished)
            self._news.notify_all()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _why(self) -> WorkerFailure:
        assert self._working is not None
        error = self._working.exception()
        if isinstance(error, CaptuneError):
            return WorkerFailure(self._host, error.message, error.hint)
        return WorkerFailure(self._host, f"{type(error).__name__}: {error}", "Run `captune doctor` there.")
