"""A job: many images captioned into a folder or a file, in shards, so that a stop at any moment loses nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from captune.app.bulk_end import JobResult, count_rows, finish, remove, write_failures
from captune.app.bulk_refused import remove_if_refused
from captune.app.bulk_report import JobReport, make_report
from captune.app.bulk_start import Job, JobRequest, check_same, load_captioner, open_or_create, parse_request, read_job
from captune.app.bulk_work import run_shards
from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.options import DEFAULT_MODEL, CaptionConfig
from captune.core.progress import SILENT, Progress
from captune.data.bulk.manifest import ShardList
from captune.data.bulk.names import MANIFEST, REPORT
from captune.data.patterns import Listed


def caption_job(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
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
    environment = os.environ if environment is None else environment
    resolved = resolve(CaptionConfig, file=config, environment=environment, flags=options, sets=sets)
    items = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
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
    if request.values.job.retry_failed:
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
        job.captioner = job.captioner or load_captioner(job.request, progress)
    try:
        return run_shards(job, todo, retry, progress)
    except (KeyboardInterrupt, SystemExit, CaptuneError):
        done = job.done() & set(job.numbers)
        progress.info(f"{len(done):,} of {len(job.numbers):,} shards are complete; the same command goes on.")
        with suppress(CaptuneError):  # the disk may be full: the error that stopped the job matters more
            write_failures(job, progress)
        raise


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
    with progress.task("Looking for new pictures"):
        new, both = job.listing.compare(request.list_shards())
    if not both and not request.inputs.named:
        raise CaptuneError(
            f"{request.store.location} holds another job: none of these pictures is in it.",
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
        job = read_job(request)
        check_same(job, progress)
        new = _count_new(job, progress)
    else:
        request.inputs.check_exist("Check the path.")
        with progress.task("Listing the pictures"):
            listing = ShardList.of(request.list_shards())
        job, new = Job(request, listing), 0
    done = job.done() if job.manifest else set()
    return make_report(job, JobResult(count_rows(job, done)), started, new=new)
