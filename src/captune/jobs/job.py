"""A job: many images captioned into a folder or file, in shards, so that a stop loses nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from captune.core.config import Resolved, resolve
from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError
from captune.core.files import as_paths, folders_to_make
from captune.core.files.paths import Listed
from captune.core.options import DEFAULT_MODEL
from captune.core.progress import SILENT, Progress
from captune.core.stores import FAILURES, JOB, MANIFEST, REPORT
from captune.core.stores.local import LocalStore, Store
from captune.inference.captioner import warn_of_style
from captune.inference.captioning import AnsweringModel
from captune.jobs.finish import JobResult, count_rows, finish, read_rows, remove, write_failures
from captune.jobs.manifest import ShardList
from captune.jobs.request import Job, JobRequest, identify, load_captioner, open_or_create, parse_request, read_job
from captune.jobs.run_shards import run_shards


def caption_job(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | Resolved | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> JobReport:
    """Caption images into the folder `out` in shards, or into a file; the same call goes on after any stop.

    Formats of a folder are jsonl (the default), csv, parquet, and sidecar, which has jsonl shards beside; a file takes
    every format, and its job is kept in `out.job` until it is written. An image that cannot be captioned is a row
    with its reason. Raises `CaptuneError` where the folder holds another job, or nothing can be written; finished
    shards stay. Options are those of `captune caption --help`.
    """
    started = time.monotonic()
    resolved = resolve("caption", file=config, environment=environment, flags=options, sets=sets)
    items = as_paths(inputs)
    # Names from a list stay different from those that the user typed.
    sources = tuple(item if isinstance(item, Listed) else os.fspath(item) for item in items)
    request = parse_request(sources, os.fspath(out), model or DEFAULT_MODEL, resolved)
    if request.values.job.dry_run:
        return _dry_run(request, progress)
    with remove_if_refused(request.store, alone=request.part == (1, 1)), open_or_create(request, progress) as job:
        report = _run(job, started, progress)
        if request.temporary:  # the file is on the disk, under its name
            remove(job)
    return report


def _run(job: Job, started: float, progress: Progress) -> JobReport:
    request, assigned, done = job.request, set(job.numbers), job.done()
    store = request.store
    todo = sorted(assigned - done)
    retry: set[int] = set()
    if request.values.job.retry_flagged:
        retry = {number for number in assigned & done if any(row.flags or row.error for row in read_rows(job, number))}
    elif request.values.job.retry_failed:
        retry = {number for number, count in count_rows(job, assigned & done).items() if count.failed}
    new = _count_new(job, progress) if todo else 0
    captioned = 0
    if todo or retry:
        store.delete(REPORT)
        captioned = _caption(job, sorted({*todo, *retry}), retry, progress)
    elif REPORT in store.names() and not request.temporary:
        earlier = json.loads(store.read(REPORT))
        if request.output is None or request.existing in ("keep", earlier.get("existing")):
            progress.info(f"The job in {request.out} is finished.")
            result = JobResult(count_rows(job, done), earlier["duplicates"])
            return make_report(job, result, started, new=_count_new(job, progress))
    result = finish(job, progress)
    if lost := assigned - set(result.counts):
        raise CaptuneError(
            f"{len(lost):,} of {len(assigned):,} shards are no more in {store.location}: they were removed while "
            "the job ran.",
            "Run the same command again: it does them anew.",
        )
    return make_report(job, result, started, captioned, new)


def _caption(job: Job, todo: list[int], retry: set[int], progress: Progress) -> int:
    """Caption shards; returns how many images. Where it is stopped, finished shards stay, and their number is shown."""
    if job.request.values.job.engine == "ray":
        job.captioner = None  # the workers load the model, perhaps onto the very GPU that this one fills
    else:
        captioner = job.captioner = job.captioner or load_captioner(job.request, progress)
        warn_of_style(captioner, progress)
    try:
        with _keeping_answers(job):
            return run_shards(job, todo, retry, progress)
    except (KeyboardInterrupt, SystemExit, CaptuneError):
        done = job.done() & set(job.numbers)
        progress.info(f"{len(done):,} of {len(job.numbers):,} shards are complete; the same command goes on.")
        with suppress(CaptuneError):  # the disk may be full: the error that stopped the job matters more
            write_failures(job, progress)
        raise


@contextmanager
def _keeping_answers(job: Job) -> Iterator[None]:
    """Keep what a model behind a server answers until the shards of this part that it belongs to are written."""
    model, store = job.captioner and job.captioner.model, job.request.store
    if not isinstance(model, AnsweringModel) or not isinstance(store, LocalStore):
        yield
        return
    file = store.folder / JOB / "answers-{}-of-{}.jsonl".format(*job.request.part)
    with model.keeping(file):
        yield
    file.unlink(missing_ok=True)


def _count_new(job: Job, progress: Progress) -> int:
    """How many files and archives are in the inputs that were not there when the job began."""
    request = job.request
    if request.part[0] > 1:
        return 0  # the first part checks for all
    unfinished = not set(job.numbers) <= job.done()
    try:
        request.inputs.check_exist()
    except CaptuneError:
        if unfinished:
            raise
        return 0
    with progress.task("Looking for new images"):
        new, both = job.listing.compare(request.list_shards())
    if not both and not request.inputs.named:
        raise CaptuneError(
            f"{request.store.location} holds another job: none of these images is in it.",
            "Take another --out for them.",
        )
    if new:
        progress.warn(
            f"{new:,} have come to the inputs since the job began and are not in it: they need another --out."
        )
    return new


def _dry_run(request: JobRequest, progress: Progress) -> JobReport:
    """What there is to do; nothing is loaded or written."""
    started = time.monotonic()
    if MANIFEST in request.store.names() and not request.values.job.restart:
        job = read_job(request, identify(request, progress)[0], progress)
        new = _count_new(job, progress)
    else:
        request.inputs.check_exist("Check the path.")
        with progress.task("Listing the images"):
            listing = ShardList.of(request.list_shards())
        job, new = Job(request, listing), 0
    done = job.done() if job.manifest else set()
    return make_report(job, JobResult(count_rows(job, done)), started, new=new)


@contextmanager
def remove_if_refused(store: Store, *, alone: bool) -> Iterator[None]:
    """Around a job: where it is new and an error ends it before a file of captions is written, remove its own files.

    `alone`: no other part of it runs elsewhere. A stop by a signal removes nothing.
    """
    new = alone and not store.names()
    missing = folders_to_make(store.folder) if isinstance(store, LocalStore) else []
    try:
        yield
    except Exception as error:
        stopped = isinstance(error, CaptuneError) and error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
        names = store.names()
        paid_for = any(name.startswith(f"{JOB}/answers-") for name in names)
        if new and not stopped and not paid_for and all(name.startswith(f"{JOB}/") for name in names):
            with suppress(CaptuneError):  # the error that ends the job matters more
                for name in store.names():
                    store.delete(name)
            if isinstance(store, LocalStore):
                for folder in (store.folder / JOB, *missing):
                    with suppress(OSError):  # it is not empty, or is not there
                        folder.rmdir()
        raise


@dataclass(frozen=True)
class JobReport:
    """The result of a job, or of a part of it.

    `out` is where the captions are, `pictures` how many images the part has (None where only reading tells), `done`
    those in written shards, `failed` those of them without a caption, which the file `failures` lists; `captioned` and
    `seconds` are of this run. `shards_done` of the part's `shards` are written; `whole`: those of all parts are.
    `duplicates` pairs of images are near-duplicates (None: not compared), `new` files have come to the inputs since
    the job began, `preserved` captions that captune did not write stayed as they were (`existing`); the files of
    `unwritten` images could not be written.
    """

    out: str
    pictures: int | None
    done: int
    failed: int
    captioned: int
    seconds: float
    shards: int
    shards_done: int
    whole: bool
    failures: str | None = None
    duplicates: int | None = None
    new: int = 0
    preserved: int = 0
    unwritten: int = 0

    @property
    def rate(self) -> float:
        """Images a second of this run."""
        return self.captioned / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


def make_report(job: Job, result: JobResult, started: float, captioned: int = 0, new: int = 0) -> JobReport:
    counts = [result.counts[number] for number in job.numbers if number in result.counts]
    failed = sum(len(count.failed) for count in counts)
    return JobReport(
        out=job.request.out,
        pictures=job.listing.count_images(job.numbers),
        done=sum(count.rows for count in counts),
        failed=failed,
        captioned=captioned,
        seconds=time.monotonic() - started,
        shards=len(job.numbers),
        shards_done=len(counts),
        whole=len(result.counts) == len(job.listing),
        failures=f"{job.request.store.location}/{FAILURES}" if failed and not job.request.temporary else None,
        duplicates=result.duplicates,
        new=new,
        preserved=result.preserved,
        unwritten=result.unwritten,
    )
