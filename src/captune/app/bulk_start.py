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
from captune.data.bulk.pieces import Piece, find_pieces
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
class Asked:
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

    def pieces(self, warn: Callable[[str], None] | None = None) -> Iterator[Piece]:
        """The pieces of the inputs as they are now; see `find_pieces`."""
        values = self.resolved.values
        return find_pieces(
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
    """A job with its pieces; `manifest` where it has begun, `captioner` where loading alone told which model it is."""

    asked: Asked
    listing: Listing
    manifest: Manifest | None = None
    captioner: Captioner | None = None
    numbers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        part, parts = self.asked.part
        self.numbers = list(range(part - 1, len(self.listing), parts))

    def done(self) -> set[int]:
        """Numbers of the shards that are in their place, of all parts."""
        return set(shard_numbers(self.asked.store.names(), self.asked.shards.suffix))


def part_of(text: str) -> tuple[int, int]:
    """`2/8` as numbers."""
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise UsageError(f"--part {text}: there is no such part.", "The first of eight is 1/8, the last 8/8.")
    return part, parts


@contextmanager
def begun(asked: Asked, progress: Progress) -> Iterator[Job]:
    """The job of a command, begun or gone on with; no other run does the same part within the block.

    Raises `CaptuneError` where the folder holds another job, naming what differs.
    """
    if MANIFEST not in asked.store.names():
        asked.inputs.check_there("Check the path.")
    with ExitStack() as stack:
        stack.enter_context(_part_lock(asked))
        options = asked.resolved.values.job
        if options.restart:
            if asked.existing != "replace":
                check_written(asked.store, filter(is_shard, asked.store.names()), _THROW_AWAY)
            _clear(asked.store)
        names = asked.store.names()
        if not options.resume and MANIFEST in names:
            raise CaptuneError(
                f"{asked.store.place} holds a job already.",
                "Leave out --no-resume to go on with it, take another --out, or start anew with --restart.",
            )
        captioner = None
        if MANIFEST not in names:
            if asked.temporary:
                _clear(asked.store)
            elif any(is_shard(name) for name in names):
                raise CaptuneError(
                    f"{asked.store.place} holds captions, but no job that made them.",
                    "Take another --out, or throw them away with --restart --existing replace.",
                )
            with waiting(asked.store, "start", progress):
                if MANIFEST not in asked.store.names():
                    captioner = _start(asked, progress)
        manifest = Manifest.read(asked.store)
        job = Job(asked, Listing.read(asked.store, manifest.pieces), manifest, captioner)
        check_same(job, progress)
        yield job


def check_same(job: Job, progress: Progress) -> None:
    """Raise `CaptuneError` where the command is another one than the job's."""
    asked, manifest = job.asked, job.manifest
    assert manifest is not None
    identity, job.captioner = _identified(asked, job.captioner, progress)
    different = manifest.differences(
        asked.model, identity.digest, options_of(asked, identity.generation, manifest.options), asked.inputs
    )
    if different:
        raise CaptuneError(
            f"{asked.store.place} holds another job:\n" + "\n".join(f"  {each}" for each in different),
            "Take another --out for this one, repeat the command that began the other to go on with it, or throw "
            "it away with --restart.",
        )
    if manifest.captune != __version__:
        progress.warn(f"The job began with captune {manifest.captune}; this is {__version__}.")


def options_of(asked: Asked, generation: dict[str, Any], then: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options that make a job what it is; `generation` are those saved with the model."""
    values = asked.resolved.with_defaults("generation", generation)
    found = {f"caption.{name}": getattr(values.caption, name) for name in _CAPTION}
    found |= {f"generation.{name}": value for name, value in values.generation.model_dump().items()}
    found |= {f"translation.{name}": value for name, value in values.translation.model_dump().items()}
    found |= {f"run_on.{saved}": getattr(values.run_on, name) for saved, name in _RUN_ON.items()}
    found |= {f"tables.{name}": value for name, value in values.tables.model_dump().items()}
    size = "job.shard_size"
    found[size] = asked.shard_size if then is None or size in asked.resolved.sources else then.get(size)
    if then is None:
        return found
    # An option that is younger than the job was at its default there.
    default = {leaf.key: leaf.default for leaf in leaves(CaptionConfig).values()}
    default |= {f"run_on.{saved}": default[f"run_on.{name}"] for saved, name in _RUN_ON.items()}
    return {key: value for key, value in found.items() if key in then or value != default[key]}


def load(asked: Asked, progress: Progress) -> Captioner:
    with progress.task("Loading the model"):
        return Captioner.load(asked.model, config=asked.resolved)


@contextmanager
def waiting(store: Store, name: str, progress: Progress) -> Iterator[None]:
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


def _start(asked: Asked, progress: Progress) -> Captioner | None:
    identity, captioner = _identified(asked, None, progress)
    with progress.task("Listing the pictures"):
        listing = Listing.of(asked.pieces(progress.warn))
        listing.write(asked.store)
    Manifest(
        captune=__version__,
        model=asked.model,
        digest=identity.digest,
        options=options_of(asked, identity.generation),
        inputs=asked.inputs,
        pieces=len(listing),
        pictures=listing.pictures(),
    ).write(asked.store)
    return captioner


def _identified(asked: Asked, captioner: Captioner | None, progress: Progress) -> tuple[Identity, Captioner | None]:
    """Which model it is; one that is not on this machine yet is loaded to know."""
    from captune.engine.identity import identity_of

    with progress.task("Looking at the model's files"):
        identity = identity_of(asked.model)
    if identity is None:
        captioner = captioner or load(asked, progress)
        identity = identity_of(asked.model)
    if identity is None:
        raise CaptuneError(
            f"Nothing tells which version of {asked.model} this is.", "Download it into a folder and name that."
        )
    return identity, captioner


@contextmanager
def _part_lock(asked: Asked) -> Iterator[None]:
    """Hold the part, and see that no run divides the job in another way, which would do shards twice."""
    part, parts = asked.part
    own_lock = f"{JOB}/part-{part}-of-{parts}.lock"
    others = [name for name in asked.store.names() if name.startswith(f"{JOB}/part-") and name != own_lock]
    try:
        with ExitStack() as stack:
            stack.enter_context(asked.store.lock(own_lock))
            for name in others:
                if not name.endswith(f"-of-{parts}.lock") or asked.resolved.values.job.restart:
                    with asked.store.lock(name):
                        pass
            yield
    except Locked as held:
        raise CaptuneError(
            f"Another run is at work on the job in {asked.store.place}: {held.message}",
            "Wait for it, or end it first. Parts of one job (--part 1/8, 2/8 …) may run at once.",
        ) from None


def _clear(store: Store) -> None:
    """Throw a job away: the manifest last, so that what is left is always a job."""
    names = [name for name in store.names() if is_shard(name) or name.startswith(f"{JOB}/")]
    # The digests stay: tars that a job ended in are not thrown away with it.
    names = [name for name in names if not name.endswith(".lock") and not is_ledger(name)]
    for name in sorted(names, key=lambda name: (name == MANIFEST, name != REPORT, name)):
        store.delete(name)
