"""A job: many pictures into a folder or a file, in shards, so that a stop at any moment loses nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from captune.app.bulk_end import JobResult, Output, count_rows, finish, remove, write_failures
from captune.app.bulk_ray import check_engine
from captune.app.bulk_refused import remove_if_refused
from captune.app.bulk_report import JobReport, make_report
from captune.app.bulk_start import Job, JobRequest, check_same, load_captioner, open_or_create, parse_part
from captune.app.bulk_work import caption_shards_of
from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import DEFAULT_MODEL, CaptionConfig
from captune.core.progress import SILENT, Progress
from captune.data.bulk.manifest import Listing, Manifest
from captune.data.bulk.names import MANIFEST, REPORT
from captune.data.bulk.remote import is_remote
from captune.data.bulk.shards import PLAIN, SHARD_FORMATS
from captune.data.bulk.store import open_store
from captune.data.patterns import Listed
from captune.data.writers import WRITERS, check_existing
from captune.data.writers.writer import is_folder, output_file

MANY_FILES = ("sidecar", "tar", "xmp")  # formats that are files in a folder, made when all shards are there


def is_job(format: str, out: str | os.PathLike[str] | None) -> bool:
    """Whether several pictures in this format to this place are a job: a folder of shards, or an ordinary file."""
    if out is None or os.fspath(out) == "-" or format not in WRITERS:
        return False
    place = _place(format, out)
    return _folder(place) or (format not in MANY_FILES and (os.path.isfile(place) or not os.path.exists(place)))


def _place(format: str, out: str | os.PathLike[str]) -> str:
    """The folder or the file that captions go to: formats without shards are one file in a folder."""
    sharded = format in SHARD_FORMATS or format in MANY_FILES
    place = os.fspath(out)
    if sharded or not _folder(out):
        return place
    suffix = WRITERS[format].suffix
    return f"{place.rstrip('/')}/captions.{suffix}" if is_remote(place) else str(output_file(Path(out), suffix))


def _folder(out: str | os.PathLike[str]) -> bool:
    place = os.fspath(out)
    return not os.path.splitext(place)[1] if is_remote(place) else is_folder(Path(out))


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
    """Caption pictures into the folder `out` in shards, or into a file; the same call goes on after any stop.

    Formats of a folder are jsonl (the default), csv, parquet, and sidecar, which has jsonl shards beside; a file takes
    every format, and its job is kept in `out.job` until it is written. A picture that cannot be captioned is a row
    with its reason. Raises `CaptuneError` where the folder holds another job, or nothing can be written; what was
    finished stays. Options are those of `captune caption --help`.
    """
    started = time.monotonic()
    environment = os.environ if environment is None else environment
    resolved = resolve(CaptionConfig, file=config, environment=environment, flags=options, sets=sets)
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    # What comes out of a list stays told apart from what the user named.
    names = tuple(item if isinstance(item, Listed) else os.fspath(item) for item in given)
    request, output = _request(names, os.fspath(out), model or DEFAULT_MODEL, resolved)
    if output is not None:
        check_existing(output.format, output.out, request.existing)
    if resolved.values.job.dry_run:
        return _dry_run(request, os.fspath(out), progress)
    with remove_if_refused(request.store, alone=request.part == (1, 1)), open_or_create(request, progress) as job:
        report = _run(job, output, os.fspath(out), started, progress)
        if request.temporary:  # what was made of it is on the disk, with its name
            remove(job)
    return report


def _request(
    given: tuple[str, ...], out: str, model: str, resolved: Resolved[CaptionConfig]
) -> tuple[JobRequest, Output | None]:
    values = resolved.values
    format = values.caption.format
    if _folder(out) and "caption.format" not in resolved.sources:
        format = PLAIN.suffix
        caption = values.caption.model_copy(update={"format": format})
        resolved = Resolved(values.model_copy(update={"caption": caption}), resolved.sources)
    WRITERS[format]  # an unknown one is told now
    if values.caption.in_place:
        raise UsageError("--in-place changes the pictures themselves: there is no --out.", "Leave out one of the two.")
    check_engine(resolved)
    if not is_job(format, out):
        raise UsageError(
            f"{format} into {out} cannot be a job.", "Folders take jsonl, csv, parquet and sidecar, files the others."
        )
    out = _place(format, out)
    folder = _folder(out)
    part = parse_part(values.job.part)
    if not folder and (part != (1, 1) or values.job.retry_failed):
        raise UsageError("--part and --retry-failed are for jobs in a folder.", "For example: --format jsonl --out DIR")
    if values.job.restart and part != (1, 1):
        raise UsageError("--restart throws away all parts of a job.", "Delete the folder, then start the parts.")
    shards = SHARD_FORMATS.get(format, PLAIN) if folder else PLAIN
    store = open_store(out if folder else f"{out}.job")
    request = JobRequest(given, model, resolved, store, shards, part, temporary=not folder)
    return request, None if folder and format not in MANY_FILES else Output(format, out)


def _run(job: Job, output: Output | None, out: str, started: float, progress: Progress) -> JobReport:
    store, mine = job.request.store, set(job.numbers)
    done = job.done()
    todo = sorted(mine - done)
    retry: set[int] = set()
    if job.request.resolved.values.job.retry_failed:
        retry = {number for number, counted in count_rows(job, mine & done).items() if counted.failed}
    new = _count_new(job, progress) if todo else 0
    captioned = 0
    if todo or retry:
        store.delete(REPORT)
        captioned = _caption(job, sorted({*todo, *retry}), retry, progress)
    elif REPORT in store.names() and not job.request.temporary:
        before = json.loads(store.read(REPORT))
        if output is None or job.request.existing in ("keep", before.get("existing")):
            progress.info(f"The job in {out} is finished.")
            counted = count_rows(job, done)
            return make_report(
                job, out, JobResult(counted, before["duplicates"]), started, new=_count_new(job, progress)
            )
    found = finish(job, output, progress)
    if gone := mine - set(found.counted):
        raise CaptuneError(
            f"{len(gone):,} of {len(mine):,} shards are no more in {store.location}: they were removed meanwhile.",
            "Run the same command again: it does them anew.",
        )
    return make_report(job, out, found, started, captioned, new)


def _caption(job: Job, todo: list[int], retry: set[int], progress: Progress) -> int:
    """Caption shards; returns how many pictures. What was whole when it is stopped stays, and is said."""
    if job.request.resolved.values.job.engine == "ray":
        captioner = job.captioner = None  # its workers load the model, perhaps onto the very card that this one fills
    else:
        captioner = job.captioner or load_captioner(job.request, progress)
    try:
        return caption_shards_of(job, captioner, todo, retry, progress)
    except (KeyboardInterrupt, SystemExit, CaptuneError):
        done = job.done() & set(job.numbers)
        progress.info(f"{len(done):,} of {len(job.numbers):,} shards are complete; the same command goes on.")
        with suppress(CaptuneError):  # the disk may be full: the error that stopped the job is the one to tell
            write_failures(job, progress)
        raise


def _count_new(job: Job, progress: Progress) -> int:
    """How many files and archives have come to the inputs since the job began; they are not in it."""
    request = job.request
    if request.part[0] > 1:
        return 0  # the first part looks for all
    unfinished = not set(job.numbers) <= job.done()
    try:
        request.inputs.check_there()
    except CaptuneError:
        if unfinished:
            raise
        return 0
    with progress.task("Looking for new pictures"):
        new, both = job.listing.newer(request.list_shards())
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


def _dry_run(request: JobRequest, out: str, progress: Progress) -> JobReport:
    """What there is to do; nothing is loaded or written."""
    started = time.monotonic()
    if MANIFEST in request.store.names() and not request.resolved.values.job.restart:
        manifest = Manifest.read(request.store)
        job = Job(request, Listing.read(request.store, manifest.pieces), manifest)
        check_same(job, progress)
        new = _count_new(job, progress)
    else:
        request.inputs.check_there("Check the path.")
        with progress.task("Listing the pictures"):
            listing = Listing.of(request.list_shards())
        job, new = Job(request, listing), 0
    done = job.done() if job.manifest else set()
    return make_report(job, out, JobResult(count_rows(job, done)), started, new=new)
