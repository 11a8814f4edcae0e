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
from captune.engine.bulk import Finished, Manner, Say, caption_pieces
from captune.engine.decoding_ahead import Shard

if TYPE_CHECKING:
    from captune.data.pixels import Square

# A turn is answered when there is something to tell, at the latest after this.
_TURN_SECONDS = 1.0


class Speaker(NamedTuple):
    """A model that was loaded: how it captions pixels, and which pixels it wants."""

    say: Say
    pixels: Square


@dataclass(frozen=True)
class Duty:
    """What every worker of a job is told; it travels to other machines, so paths are absolute.

    `load` is a function of a module, or a partial of one. `manifest` are the bytes of the job's manifest in the
    store at `place`, `folder` is the working folder that names of pictures depend on, `pictures` are some
    that can be seen where the job was started, `check_there` raises `CaptuneError` where inputs are missing.
    """

    place: str
    manifest: bytes
    manner: Manner
    load: Callable[[], Speaker]
    check_there: Callable[[], None]
    folder: str | None = None
    pictures: tuple[str, ...] = ()
    captune: str = __version__


@dataclass(frozen=True)
class Ready:
    """A worker has the model; `host` is its machine, `process` its number there."""

    host: str
    process: int


@dataclass(frozen=True)
class Refused:
    """A worker cannot do its work, and why; as in `CaptuneError`."""

    host: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Told:
    """News of a turn: pictures done since the last one, and shards that are in their place; or why it is over."""

    pictures: int = 0
    finished: tuple[Finished, ...] = ()
    refused: Refused | None = None


class Worker:
    """Made on a node, started there once, then given shards, several turns to each."""

    def __init__(self, duty: Duty, cores: int) -> None:
        manner = duty.manner
        self._duty = replace(duty, manner=replace(manner, workers=manner.workers or cores))
        self._host = socket.gethostname()
        self._given: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._news = threading.Condition()
        self._pictures = 0
        self._finished: list[Finished] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="captune-shards")
        self._working: Future[None] | None = None

    def start(self) -> Ready | Refused:
        """Look whether this machine sees what the job needs, and load the model."""
        try:
            self._check()
            self._speaker = self._duty.load()
        except CaptuneError as error:
            return Refused(self._host, error.message, error.hint)
        self._working = self._thread.submit(self._work)
        self._working.add_done_callback(lambda _: self._tell())
        return Ready(self._host, os.getpid())

    def turn(self, shards: tuple[Shard, ...] = ()) -> Told:
        """Take shards, and tell what has happened since the last turn."""
        for shard in shards:
            self._given.put(shard)
        with self._news:
            if not (self._finished or self._over):
                self._news.wait(_TURN_SECONDS)
            pictures, finished = self._pictures, tuple(self._finished)
            self._pictures = 0
            self._finished.clear()
        return Told(pictures, finished, self._why() if self._over else None)

    @property
    def _over(self) -> bool:
        return self._working is not None and self._working.done()

    def _check(self) -> None:
        duty = self._duty
        if duty.captune != __version__:
            raise CaptuneError(
                f"It has captune {__version__}, the job was started with {duty.captune}.",
                "Install the same version on all nodes.",
            )
        if duty.folder is not None:
            try:
                os.chdir(duty.folder)
            except OSError as error:
                raise CaptuneError(
                    f"The working folder {duty.folder} is not there ({error.strerror}).",
                    "Share it with all nodes at the same path, or give absolute paths.",
                ) from None
        try:
            same = open_store(duty.place).read(MANIFEST) == duty.manifest
        except CaptuneError:
            same = False
        if not same:
            raise CaptuneError(
                f"The job in {duty.place} is not seen from there.",
                "Share that folder with all nodes at the same path, or put the job on object storage: --out s3://…",
            )
        duty.check_there()
        unseen = [picture for picture in duty.pictures if not os.path.exists(picture)]
        if unseen:
            raise CaptuneError(
                f"The picture {unseen[0]} is not there.", "Share the pictures with all nodes at the same path."
            )

    def _work(self) -> None:
        duty = self._duty
        work = caption_pieces(
            self._speaker.say,
            self._speaker.pixels,
            iter(self._given.get, None),
            open_store(duty.place),
            duty.manner,
            advance=self._advance,
            check_missing=duty.check_there,
            written=self._written,
            stop=lambda: self._given.put(None),
        )
        for _ in work:
            pass  # told already, when it was written

    def _advance(self, pictures: int) -> None:
        with self._news:
            self._pictures += pictures

    def _written(self, finished: Finished) -> None:
        with self._news:
            self._finished.append(finished)
            self._news.notify_all()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _why(self) -> Refused:
        assert self._working is not None
        error = self._working.exception()
        if isinstance(error, CaptuneError):
            return Refused(self._host, error.message, error.hint)
        return Refused(self._host, f"{type(error).__name__}: {error}", "Run `captune doctor` there.")
