"""A worker of a job on a Ray cluster: a process on a node that has the model and captions the shards it gets.

Nothing here imports ray: its actors are made of this class by `captune.jobs.ray_pool`.
"""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from captune import __version__
from captune.core.errors import CaptuneError
from captune.core.stores import MANIFEST
from captune.core.stores.local import open_store
from captune.jobs.decode_ahead import ShardTask
from captune.jobs.shard_captioner import BatchCaptioner, FinishedShard, ShardOptions, caption_shards

# A poll is answered when there is something to report, at the latest after this.
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerSpec:
    """What every worker of a job needs to know. It is sent to other machines, so paths are absolute.

    `load` is a function of a module, or a partial of one. `manifest` are the bytes of the job's manifest in the
    store at `location`, `folder` is the working folder that names of images depend on, `images` are some that exist
    where the job was started, `check_inputs` raises `CaptuneError` where inputs are missing.
    """

    location: str
    manifest: bytes
    options: ShardOptions
    load: Callable[[], BatchCaptioner]
    check_inputs: Callable[[], None]
    folder: str | None = None
    images: tuple[str, ...] = ()
    captune: str = __version__


@dataclass(frozen=True)
class WorkerUpdate:
    """Since the last poll: images captioned and shards written; `failure` where the worker has ended."""

    images: int = 0
    finished: tuple[FinishedShard, ...] = ()
    failure: CaptuneError | None = None


class Worker:
    """Created on a node, started there once, then polled; a poll may bring shards."""

    def __init__(self, spec: WorkerSpec, cores: int) -> None:
        options = spec.options
        self._spec = replace(spec, options=replace(options, workers=options.workers or cores))
        self._tasks: queue.SimpleQueue[ShardTask | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._images = 0
        self._finished: list[FinishedShard] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="captune-shards")
        self._work: Future[None] = Future()

    def start(self) -> WorkerUpdate:
        """Check that this machine has what the job needs, and load the model."""
        try:
            self._check()
            model = self._spec.load()
        except CaptuneError as error:
            return WorkerUpdate(failure=_failure(error))
        self._work = self._thread.submit(self._caption, model)
        self._work.add_done_callback(lambda _: self._report())
        return WorkerUpdate()

    def poll(self, tasks: tuple[ShardTask, ...] = ()) -> WorkerUpdate:
        """Take shards, and report what has happened since the last poll."""
        for task in tasks:
            self._tasks.put(task)
        with self._changed:
            if not (self._finished or self._work.done()):
                self._changed.wait(_POLL_SECONDS)
            images, finished = self._images, tuple(self._finished)
            self._images = 0
            self._finished.clear()
        return WorkerUpdate(images, finished, _failure(self._work.exception()) if self._work.done() else None)

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
                f"The job in {spec.location} is not visible there.",
                "Share that folder with all nodes at the same path, or put the job on object storage: --out s3://…",
            )
        spec.check_inputs()
        missing = [image for image in spec.images if not os.path.exists(image)]
        if missing:
            raise CaptuneError(
                f"The image {missing[0]} is not there.", "Share the images with all nodes at the same path."
            )

    def _caption(self, model: BatchCaptioner) -> None:
        spec = self._spec
        for _ in caption_shards(
            model,
            iter(self._tasks.get, None),
            open_store(spec.location),
            spec.options,
            advance=lambda images: self._report(images),
            check_inputs=spec.check_inputs,
            on_written=lambda finished: self._report(finished=finished),
            stop=lambda: self._tasks.put(None),
        ):
            pass  # reported as soon as it is written

    def _report(self, images: int = 0, finished: FinishedShard | None = None) -> None:
        """Add what the next poll reports; a poll that waits is answered at once, except for single images."""
        with self._changed:
            self._images += images
            self._finished += [finished] if finished else []
            if not images:
                self._changed.notify_all()


def _failure(error: BaseException | None) -> CaptuneError:
    """What ended a worker, as one plain error that other machines can read."""
    if isinstance(error, CaptuneError):
        return CaptuneError(error.message, error.hint)
    return CaptuneError(f"{type(error).__name__}: {error}", "Run `captune doctor` there.")
