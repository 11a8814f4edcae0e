"""The request of a job, and how the job is created or opened for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune import __version__
from captune.captions.prompts.choice import Choice, prompts_of
from captune.captions.provenance import Provenance, today
from captune.captions.structure import Structure
from captune.captions.writers import WRITERS, check_existing, check_suffix
from captune.captions.writers.writer import is_folder, output_file
from captune.core.config import Resolved, leaves
from captune.core.endpoints import with_address
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.existing import Mode
from captune.core.files.locks import Locked
from captune.core.files.paths import mark_written
from captune.core.progress import Progress
from captune.core.stores import JOB, MANIFEST, REPORT, SHARD_LIST, is_ledger
from captune.core.stores.files import is_remote
from captune.core.stores.local import LocalStore, Store, check_written, open_store
from captune.datasets.sources.input_shards import InputShard, list_input_shards
from captune.inference.captioner import Captioner
from captune.inference.structured import GENERATION, structure_of
from captune.jobs.manifest import Inputs, Manifest, ShardList
from captune.jobs.shards import PLAIN, SHARD_FORMATS, ShardFormat, is_shard, shard_numbers

if TYPE_CHECKING:
    from captune.models.loading.identity import Identity

_FORMATS_BY_ENDING = ("json", "jsonl", "csv", "xml", "parquet")
_FORMATS_OF_MANY_FILES = ("sidecar", "tar", "xmp")  # written into a folder once all shards are complete
# Options that change captions or rows; `job.shard_size` only where a command sets it.
_CAPTION = ("format", "recursive", "max_pixels", "provenance", "own_words", "sidecar_suffix")
# Names in the manifest of a job, and of the options.
_RUN_ON = {
    "precision": "precision",
    "quantize": "quantize",
    "pixels": "preprocessing",
    "decoder": "decoder",
    "image_tokens": "image_tokens",
}
_RAY_OPTIONS = ("ray_address", "ray_workers", "ray_wait", "gpus_per_worker", "cpus_per_worker")
_WAIT_SECONDS = 0.5
_RESTART_HINT = "Take another --out, copy them elsewhere first, or throw them away too: --restart --existing replace."


@dataclass(frozen=True)
class Output:
    """What is made of the result shards by an ordinary writer: a file, or many files in a folder."""

    format: str
    out: str


@dataclass(frozen=True)
class JobRequest:
    """What a command asks for.

    `sources` name the images, `out` is where captions go as the user named it, `format` that of the shards in `store`.
    `part` is (2, 8) for the second of eight. Where shards are not the result, `output` is made of them; if it is a
    file, the job is `temporary`: removed when the file is complete. `choices` are the prompts of --prompts.
    """

    sources: tuple[str, ...]
    out: str
    model: str
    resolved: Resolved
    store: Store
    format: ShardFormat
    part: tuple[int, int]
    output: Output | None = None
    temporary: bool = False
    choices: tuple[Choice, ...] = ()

    @property
    def values(self) -> Any:
        return self.resolved.values

    @property
    def inputs(self) -> Inputs:
        return Inputs.of(self.sources)

    @cached_property
    def structure(self) -> Structure | None:
        """The schema that captions have to fit."""
        return structure_of(self.values)

    @property
    def fields(self) -> dict[str, str]:
        """The fields of captions, with their kinds."""
        return self.structure.columns if self.structure else {}

    @property
    def existing(self) -> Mode:
        """What happens to captions of a person in the output."""
        return self.values.caption.existing

    def list_shards(self, warn: Callable[[str], None] | None = None) -> Iterator[InputShard]:
        """The shards of the inputs as they are now; see `list_input_shards`."""
        return list_input_shards(
            self.sources,
            recursive=self.values.caption.recursive,
            shard_size=self.values.job.shard_size,
            warn=warn,
            images=self.values.tables.images,
            allow_outside=self.values.tables.allow_outside,
            prompts=self.values.prompts.prompt_column,
        )


def is_job(format: str, out: str | os.PathLike[str] | None) -> bool:
    """Whether captions of several images in this format are written by a job: into a folder or an ordinary file."""
    if out is None or os.fspath(out) == "-" or format not in WRITERS:
        return False
    path = _output_path(format, out)
    return _is_folder(path) or (
        format not in _FORMATS_OF_MANY_FILES and (os.path.isfile(path) or not os.path.exists(path))
    )


def with_format(resolved: Resolved, out: str | os.PathLike[str] | None) -> Resolved:
    """The options with the format that the ending of a file names, where nobody chose one: captions.csv is CSV."""
    ending = "" if out is None else os.path.splitext(os.fspath(out))[1].lower().removeprefix(".")
    if "caption.format" in resolved.sources or ending not in _FORMATS_BY_ENDING:
        return resolved
    return _with_format(resolved, ending)


def _with_format(resolved: Resolved, format: str) -> Resolved:
    caption = resolved.values.caption.model_copy(update={"format": format})
    return Resolved(resolved.values.model_copy(update={"caption": caption}), resolved.sources)


def parse_request(sources: tuple[str, ...], out: str, model: str, resolved: Resolved) -> JobRequest:
    """The request of a command; raises `CaptuneError` where its options do not fit together."""
    resolved = with_format(resolved, out)
    values = resolved.values
    format = values.caption.format
    if _is_folder(out) and "caption.format" not in resolved.sources:
        resolved, format = _with_format(resolved, PLAIN.suffix), PLAIN.suffix
    WRITERS[format]  # raises for an unknown one
    check_suffix(format, values.caption.sidecar_suffix)
    if values.caption.in_place:
        raise UsageError("--in-place changes the images themselves: there is no --out.", "Leave out one of the two.")
    if values.job.engine != "ray":
        for flag in (resolved.sources.get(f"job.{name}", "") for name in _RAY_OPTIONS):
            if flag.startswith("--"):
                raise UsageError(f"{flag} needs --engine ray.", "Add it, or leave both out.")
    if not is_job(format, out):
        raise UsageError(
            f"{format} into {out} cannot be a job.", "Folders take jsonl, csv, parquet and sidecar, files the others."
        )
    path = _output_path(format, out)
    folder = _is_folder(path)
    part = parse_part(values.job.part)
    if not folder and (part != (1, 1) or values.job.retry_failed or values.job.retry_flagged):
        raise UsageError(
            "--part, --retry-failed and --retry-flagged are for jobs in a folder.",
            "For example: --format jsonl --out DIR",
        )
    if values.job.restart and part != (1, 1):
        raise UsageError("--restart throws away all parts of a job.", "Delete the folder, then start the parts.")
    output = None if folder and format not in _FORMATS_OF_MANY_FILES else Output(format, path)
    if output is not None:
        check_existing(output.format, output.out, values.caption.existing)
    store = open_store(path if folder else f"{path}.job")
    shard_format = SHARD_FORMATS.get(format, PLAIN) if folder else PLAIN
    structure = structure_of(values)
    if structure is not None:  # other machines have no such file
        own = values.structure.model_copy(update={"schema": structure.text})
        resolved = Resolved(values.model_copy(update={"structure": own}), resolved.sources)
    model, choices = with_address(model, values.endpoint.base_url), prompts_of(values).choices
    return JobRequest(sources, out, model, resolved, store, shard_format, part, output, not folder, choices)


def parse_part(text: str) -> tuple[int, int]:
    """`2/8` as numbers."""
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise UsageError(f"--part {text}: there is no such part.", "The first of eight is 1/8, the last 8/8.")
    return part, parts


def _output_path(format: str, out: str | os.PathLike[str]) -> str:
    """The folder or the file that captions go to: a format without shards is one file in a folder."""
    path = os.fspath(out)
    if format in SHARD_FORMATS or format in _FORMATS_OF_MANY_FILES or not _is_folder(path):
        return path
    suffix = WRITERS[format].suffix
    return f"{path.rstrip('/')}/captions.{suffix}" if is_remote(path) else str(output_file(Path(path), suffix))


def _is_folder(path: str | os.PathLike[str]) -> bool:
    path = os.fspath(path)
    return not os.path.splitext(path)[1] if is_remote(path) else is_folder(Path(path))


@dataclass
class Job:
    """A job and its input shards; `captioner` where the model had to be loaded to identify it."""

    request: JobRequest
    listing: ShardList
    manifest: Manifest | None = None
    captioner: Captioner | None = None
    numbers: list[int] = field(init=False)  # of the shards of this part

    def __post_init__(self) -> None:
        part, parts = self.request.part
        self.numbers = list(range(part - 1, len(self.listing), parts))

    @property
    def provenance(self) -> Provenance | None:
        """What every row of the job notes of its model; None where it notes nothing, as jobs of earlier versions."""
        manifest = self.manifest
        if manifest is None or manifest.options.get("caption.provenance", "off") == "off":
            return None
        return Provenance("model", manifest.model, manifest.digest, date=manifest.started, captune=__version__)

    def done(self) -> set[int]:
        """Numbers of the shards that are written, of all parts."""
        return set(shard_numbers(self.request.store.names(), self.request.format.suffix))


@contextmanager
def open_or_create(request: JobRequest, progress: Progress) -> Iterator[Job]:
    """Create the job of a request, or open the one that its folder holds; no other run does the same part meanwhile.

    Raises `CaptuneError` where the folder holds another job, naming the differences.
    """
    store = request.store
    if MANIFEST not in store.names():
        request.inputs.check_exist("Check the path.")
    with _part_lock(request):
        options = request.values.job
        if options.restart:
            if request.existing != "replace":
                check_written(store, filter(is_shard, store.names()), _RESTART_HINT)
            _clear(store)
        names = store.names()
        if MANIFEST in names:
            if not options.resume:
                raise CaptuneError(
                    f"{store.location} holds a job already.",
                    "Leave out --no-resume to go on with it, take another --out, or start anew with --restart.",
                )
        elif request.temporary:
            _clear(store)
        elif any(is_shard(name) for name in names):
            raise CaptuneError(
                f"{store.location} holds captions, but no job that made them.",
                "Take another --out, or throw them away with --restart --existing replace.",
            )
        identity, captioner = identify(request, progress)
        if MANIFEST not in names:
            with wait_for_lock(store, "start", progress):
                if MANIFEST not in store.names():
                    _create(request, identity, progress)
        job = read_job(request, identity, progress)
        job.captioner = captioner
        yield job


def read_job(request: JobRequest, identity: Identity, progress: Progress) -> Job:
    """The job that a request's folder holds; raises `CaptuneError` where it is a different one."""
    manifest = Manifest.read(request.store)
    different = manifest.differences(
        request.model, identity.digest, _options(request, identity.generation, manifest.options), request.inputs
    )
    if different:
        raise CaptuneError(
            f"{request.store.location} holds another job:\n" + "\n".join(f"  {each}" for each in different),
            "Take another --out for this one, repeat the command that began the other to go on with it, or throw "
            "it away with --restart.",
        )
    if manifest.captune != __version__:
        progress.warn(f"The job began with captune {manifest.captune}; this is {__version__}.")
    return Job(request, ShardList.read(request.store, manifest.shards), manifest)


def load_captioner(request: JobRequest, progress: Progress) -> Captioner:
    with progress.task("Loading the model"):
        return Captioner.load(request.model, config=request.resolved)


@contextmanager
def wait_for_lock(store: Store, name: str, progress: Progress) -> Iterator[None]:
    """Hold a lock of the job within a block, once other runs have released it."""
    with ExitStack() as stack:
        waiting = False
        while True:
            try:
                stack.enter_context(store.lock(f"{JOB}/{name}.lock"))
                break
            except Locked:
                if not waiting:
                    progress.info("Waiting for another part of the job.")
                waiting = True
                time.sleep(_WAIT_SECONDS)
        yield


def _options(request: JobRequest, generation: dict[str, Any], earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options that identify a job; `generation` are those saved with the model, `earlier` those of its manifest."""
    structure = request.structure
    values = request.resolved.with_defaults("generation", {**generation, **(GENERATION if structure else {})})
    options = {f"caption.{name}": getattr(values.caption, name) for name in _CAPTION}
    options |= {f"generation.{name}": value for name, value in values.generation.model_dump().items()}
    options |= {f"translation.{name}": value for name, value in values.translation.model_dump().items()}
    options |= {f"run_on.{saved}": getattr(values.run_on, name) for saved, name in _RUN_ON.items()}
    options |= {f"wording.{name}": value for name, value in values.wording.model_dump().items()}
    options |= {f"prompts.{name}": value for name, value in values.prompts.model_dump().items()}
    if request.choices:  # what the file holds, wherever it lies
        options["prompts.prompts"] = [choice.to_json() for choice in request.choices]
    options |= {f"tables.{name}": value for name, value in values.tables.model_dump().items()}
    options |= {"structure.schema": structure and structure.digest}
    options |= {"structure.schema_retries": values.structure.schema_retries} if structure else {}
    size = "job.shard_size"
    own = values.job.shard_size
    options[size] = own if earlier is None or size in request.resolved.sources else earlier.get(size)
    if earlier is None:
        return options
    # The job began with the defaults of options that are younger than it.
    default = {leaf.key: leaf.default for leaf in leaves("caption").values()}
    default |= {f"run_on.{saved}": default[f"run_on.{name}"] for saved, name in _RUN_ON.items()}
    return {key: value for key, value in options.items() if key in earlier or value != default[key]}


def _create(request: JobRequest, identity: Identity, progress: Progress) -> None:
    with progress.task("Listing the images"):
        listing = ShardList.of(request.list_shards(progress.warn))
        listing.write(request.store)
        if isinstance(request.store, LocalStore):  # the images that it names may lie anywhere
            mark_written(request.store.folder / JOB, [os.path.basename(SHARD_LIST)])
    Manifest(
        captune=__version__,
        model=request.model,
        digest=identity.digest,
        options=_options(request, identity.generation),
        inputs=request.inputs,
        shards=len(listing),
        images=listing.count_images(),
        started=today(),
    ).write(request.store)


def identify(request: JobRequest, progress: Progress) -> tuple[Identity, Captioner | None]:
    """The identity of the model; one that is not on this machine yet is loaded for that."""
    from captune.models.loading.identity import identity_of

    with progress.task("Looking at the model's files"):
        identity, captioner = identity_of(request.model), None
    if identity is None:
        captioner = load_captioner(request, progress)
        identity = identity_of(request.model)
    if identity is None:
        raise CaptuneError(
            f"Nothing tells which version of {request.model} this is.", "Download it into a folder and name that."
        )
    return identity, captioner


@contextmanager
def _part_lock(request: JobRequest) -> Iterator[None]:
    """Lock the part within a block; raise where a run divides the job into other parts, which would repeat shards."""
    part, parts = request.part
    own_lock = f"{JOB}/part-{part}-of-{parts}.lock"
    others = [name for name in request.store.names() if name.startswith(f"{JOB}/part-") and name != own_lock]
    try:
        with ExitStack() as stack:
            stack.enter_context(request.store.lock(own_lock))
            for name in others:
                if not name.endswith(f"-of-{parts}.lock") or request.values.job.restart:
                    with request.store.lock(name):
                        pass
            yield
    except Locked as locked:
        raise CaptuneError(
            f"Another run is at work on the job in {request.store.location}: {locked.message}",
            "Wait for it, or end it first. Parts of one job (--part 1/8, 2/8 …) may run at once.",
        ) from None


def _clear(store: Store) -> None:
    """Delete a job: the manifest last, so that what is left is always a job."""
    names = [name for name in store.names() if is_shard(name) or name.startswith(f"{JOB}/")]
    # The ledgers stay: tars that a job was written into are not deleted with it.
    names = [name for name in names if not name.endswith(".lock") and not is_ledger(name)]
    for name in sorted(names, key=lambda name: (name == MANIFEST, name != REPORT, name)):
        store.delete(name)
