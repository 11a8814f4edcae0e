"""How a job begins, or goes on: what it is, whether it is the one that the folder holds, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from captune import __version__
from captune.app.captioner import Captioner
from captune.core.config import Resolved, leaves
from captune.core.errors import CaptuneError, UsageError
from captune.core.locks import Locked
from captune.core.options import CaptionConfig
from captune.core.progress import Progress
from captune.data.bulk.manifest import Inputs, Listing, Manifest
from captune.data.bulk.names import JOB, MANIFEST, REPORT, is_ledger
from captune.data.bulk.pieces import InputShard, list_input_shards
from captune.data.bulk.shards import ShardFormat, is_shard, shard_numbers
from captune.data.bulk.store import Store, check_written
from captune.data.writers.existing import Mode

if TYPE_CHECKING:
    from captune.engine.identity import Identity

# Options that change captions or rows; `job.shard_size` only where somebody asks for it.
_CAPTION = ("format", "recursive", "max_pixels")
# Names in the manifest of a job, and of the options.
_RUN_ON = {"precision": "precision", "quantize": "quantize", "pixels": "preprocessing", "decoder": "decoder"}
_WAIT_SECONDS = 0.5
_THROW_AWAY = "Take another --out, copy them elsewhere first, or throw them away too: --restart --existing replace."


@dataclass(frozen=True)
class JobRequest:
    """What a command asks for: inputs, model, options, a store, and which of how many parts.

    A `temporary` job is removed when a file has been made of it.
    """

    given: tuple[str, ...]
    model: str
    resolved: Resolved[CaptionConfig]
    store: Store
    shards: ShardFormat
    part: tuple[int, int]
    temporary: bool = False

    @property
    def inputs(self) -> Inputs:
        return Inputs.of(self.given)

    @property
    def existing(self) -> Mode:
        """What becomes of a person's words where captions go."""
        return self.resolved.values.caption.existing

    def list_shards(self, warn: Callable[[str], None] | None = None) -> Iterator[InputShard]:
        """The input shards of the inputs as they are now; see `list_input_shards`."""
        values = self.resolved.values
        return list_input_shards(
            self.given,
            recursive=values.caption.recursive,
            shard_size=self.shard_size,
            warn=warn,
            images=values.tables.images,
            allow_outside=values.tables.allow_outside,
        )

    @property
    def shard_size(self) -> int:
        return self.resolved.values.job.shard_size


@dataclass
class Job:
    """A job and its input shards; `captioner` where the model had to be loaded to identify it."""

    request: JobRequest
    listing: Listing
    manifest: Manifest | None = None
    captioner: Captioner | None = None
    numbers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        part, parts = self.request.part
        self.numbers = list(range(part - 1, len(self.listing), parts))

    def done(self) -> set[int]:
        """Numbers of the shards that are in their place, of all parts."""
        return set(shard_numbers(self.request.store.names(), self.request.shards.suffix))


def parse_part(text: str) -> tuple[int, int]:
    """`2/8` as numbers."""
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise UsageError(f"--part {text}: there is no such part.", "The first of eight is 1/8, the last 8/8.")
    return part, parts


@contextmanager
def open_or_create(request: JobRequest, progress: Progress) -> Iterator[Job]:
    """The job of a command, begun or gone on with; no other run does the same part within the block.

    Raises `CaptuneError` where the folder holds another job, naming what differs.
    """
    if MANIFEST not in request.store.names():
        request.inputs.check_there("Check the path.")
    with ExitStack() as stack:
        stack.enter_context(_part_lock(request))
        options = request.resolved.values.job
        if options.restart:
            if request.existing != "replace":
                check_written(request.store, filter(is_shard, request.store.names()), _THROW_AWAY)
            _clear(request.store)
        names = request.store.names()
        if not options.resume and MANIFEST in names:
            raise CaptuneError(
                f"{request.store.location} holds a job already.",
                "Leave out --no-resume to go on with it, take another --out, or start anew with --restart.",
            )
        captioner = None
        if MANIFEST not in names:
            if request.temporary:
                _clear(request.store)
            elif any(is_shard(name) for name in names):
                raise CaptuneError(
                    f"{request.store.location} holds captions, but no job that made them.",
                    "Take another --out, or throw them away with --restart --existing replace.",
                )
            with wait_for_lock(request.store, "start", progress):
                if MANIFEST not in request.store.names():
                    captioner = _start(request, progress)
        manifest = Manifest.read(request.store)
        job = Job(request, Listing.read(request.store, manifest.pieces), manifest, captioner)
        check_same(job, progress)
        yield job


def check_same(job: Job, progress: Progress) -> None:
    """Raise `CaptuneError` where the command is another one than the job's."""
    request, manifest = job.request, job.manifest
    assert manifest is not None
    identity, job.captioner = _identified(request, job.captioner, progress)
    different = manifest.differences(
        request.model, identity.digest, identity_options(request, identity.generation, manifest.options), request.inputs
    )
    if different:
        raise CaptuneError(
            f"{request.store.location} holds another job:\n" + "\n".join(f"  {each}" for each in different),
            "Take another --out for this one, repeat the command that began the other to go on with it, or throw "
            "it away with --restart.",
        )
    if manifest.captune != __version__:
        progress.warn(f"The job began with captune {manifest.captune}; this is {__version__}.")


def identity_options(
    request: JobRequest, generation: dict[str, Any], then: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The options that make a job what it is; `generation` are those saved with the model."""
    values = request.resolved.with_defaults("generation", generation)
    found = {f"caption.{name}": getattr(values.caption, name) for name in _CAPTION}
    found |= {f"generation.{name}": value for name, value in values.generation.model_dump().items()}
    found |= {f"translation.{name}": value for name, value in values.translation.model_dump().items()}
    found |= {f"run_on.{saved}": getattr(values.run_on, name) for saved, name in _RUN_ON.items()}
    found |= {f"tables.{name}": value for name, value in values.tables.model_dump().items()}
    size = "job.shard_size"
    found[size] = request.shard_size if then is None or size in request.resolved.sources else then.get(size)
    if then is None:
        return found
    # An option that is younger than the job was at its default there.
    default = {leaf.key: leaf.default for leaf in leaves(CaptionConfig).values()}
    default |= {f"run_on.{saved}": default[f"run_on.{name}"] for saved, name in _RUN_ON.items()}
    return {key: value for key, value in found.items() if key in then or value != default[key]}


def load_captioner(request: JobRequest, progress: Progress) -> Captioner:
    with progress.task("Loading the model"):
        return Captioner.load(request.model, config=request.resolved)


@contextmanager
def wait_for_lock(store: Store, name: str, progress: Progress) -> Iterator[None]:
    """Hold a lock of the job, once other runs have let go of it."""
    with ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(store.lock(f"{JOB}/{name}.lock"))
                break
            except Locked:
                if not told:
                    progress.info("Waiting for another part of the job.")
                told = True
                time.sleep(_WAIT_SECONDS)
        yield


def _start(request: JobRequest, progress: Progress) -> Captioner | None:
    identity, captioner = _identified(request, None, progress)
    with progress.task("Listing the pictures"):
        listing = Listing.of(request.list_shards(progress.warn))
        listing.write(request.store)
    Manifest(
        captune=__version__,
        model=request.model,
        digest=identity.digest,
        options=identity_options(request, identity.generation),
        inputs=request.inputs,
        pieces=len(listing),
        pictures=listing.pictures(),
    ).write(request.store)
    return captioner


def _identified(
    request: JobRequest, captioner: Captioner | None, progress: Progress
) -> tuple[Identity, Captioner | None]:
    """Which model it is; one that is not on this machine yet is loaded to know."""
    from captune.engine.identity import identity_of

    with progress.task("Looking at the model's files"):
        identity = identity_of(request.model)
    if identity is None:
        captioner = captioner or load_captioner(request, progress)
        identity = identity_of(request.model)
    if identity is None:
        raise CaptuneError(
            f"Nothing tells which version of {request.model} this is.", "Download it into a folder and name that."
        )
    return identity, captioner


@contextmanager
def _part_lock(request: JobRequest) -> Iterator[None]:
    """Hold the part, and see that no run divides the job in another way, which would do shards twice."""
    part, parts = request.part
    own_lock = f"{JOB}/part-{part}-of-{parts}.lock"
    others = [name for name in request.store.names() if name.startswith(f"{JOB}/part-") and name != own_lock]
    try:
        with ExitStack() as stack:
            stack.enter_context(request.store.lock(own_lock))
            for name in others:
                if not name.endswith(f"-of-{parts}.lock") or request.resolved.values.job.restart:
                    with request.store.lock(name):
                        pass
            yield
    except Locked as held:
        raise CaptuneError(
            f"Another run is at work on the job in {request.store.location}: {held.message}",
            "Wait for it, or end it first. Parts of one job (--part 1/8, 2/8 …) may run at once.",
        ) from None


def _clear(store: Store) -> None:
    """Throw a job away: the manifest last, so that what is left is always a job."""
    names = [name for name in store.names() if is_shard(name) or name.startswith(f"{JOB}/")]
    # The digests stay: tars that a job ended in are not thrown away with it.
    names = [name for name in names if not name.endswith(".lock") and not is_ledger(name)]
    for name in sorted(names, key=lambda name: (name == MANIFEST, name != REPORT, name)):
        store.delete(name)
