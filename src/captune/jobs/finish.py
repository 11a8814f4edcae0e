"""How a job is finished: its failures, its near-duplicates, and the file or files made of its shards."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from captune.captions.row import CaptionRow
from captune.captions.writers import ShardWriter, open_writer
from captune.core.files import disk_error
from captune.core.files.existing import ExistingCaptions
from captune.core.progress import Progress
from captune.core.stores import DUPLICATES, FAILURES, MANIFEST, REPORT
from captune.core.stores.files import is_remote
from captune.images.duplicates import MAX_COMPARED, find_duplicate_images
from captune.jobs.request import Job, Output, wait_for_lock
from captune.jobs.shards import shard_name

MAX_WARNINGS = 20


@dataclass(frozen=True)
class ShardCount:
    """The number of rows of a shard, and those of them that failed."""

    rows: int
    failed: tuple[CaptionRow, ...]


@dataclass(frozen=True)
class JobResult:
    """The counts of written shards by number, and how many near-duplicates there are (None: not compared).

    `preserved` captions of a person stayed in the output; the files of `unwritten` images could not be written.
    """

    counts: dict[int, ShardCount]
    duplicates: int | None = None
    preserved: int = 0
    unwritten: int = 0


def count_rows(job: Job, numbers: set[int]) -> dict[int, ShardCount]:
    """The counts of shards; only those with failures are read row by row."""
    return {number: _count(job, number) for number in sorted(numbers)}


def read_rows(job: Job, number: int) -> Iterator[CaptionRow]:
    """The rows of a shard; raises `CaptuneError` where it is damaged."""
    name = _name(job, number)
    return job.request.format.decode(job.request.store.read(name), name)


def write_failures(job: Job, progress: Progress) -> dict[int, ShardCount]:
    """Write `failures.jsonl` anew from the shards that are written, and count those."""
    with wait_for_lock(job.request.store, "end", progress):
        return _write_failures(job)


def finish(job: Job, progress: Progress) -> JobResult:
    """List failures; where all shards are written, find near-duplicates, write the output and mark the job finished."""
    request = job.request
    with wait_for_lock(request.store, "end", progress):
        counts = _write_failures(job)
        if len(counts) < len(job.listing):
            return JobResult(counts)
        duplicates = None if request.temporary else _write_duplicates(job, sorted(counts), progress)
        preserved, unwritten = (0, 0) if request.output is None else _write_output(job, request.output, progress)
        report: dict[str, Any] = {
            "pictures": sum(count.rows for count in counts.values()),
            "failed": sum(len(count.failed) for count in counts.values()),
            "duplicates": duplicates,
        }
        if request.output is not None:
            report["existing"] = request.existing
        if not unwritten:  # else the same command tries those again
            request.store.publish(REPORT, (json.dumps(report, indent=2) + "\n").encode())
        return JobResult(counts, duplicates, preserved, unwritten)


def remove(job: Job) -> None:
    """Remove the folder of a job whose rows are in a file."""
    store = job.request.store
    store.delete(MANIFEST)  # without it the rest is no job, whenever this is stopped
    for name in store.names() if is_remote(store.location) else ():
        store.delete(name)
    try:
        if not is_remote(store.location):
            shutil.rmtree(store.location)
    except OSError as error:
        raise disk_error(error, store.location) from error


def _write_output(job: Job, output: Output, progress: Progress) -> tuple[int, int]:
    """Write the output; returns how many captions of a person were preserved, and how many files not written."""
    with (
        progress.task(f"Writing {output.out}", job.listing.count_images()) as task,
        open_writer(
            output.format,
            output.out,
            existing=job.request.existing,
            provenance=job.provenance is not None,
            sidecar_suffix=job.request.values.caption.sidecar_suffix,
            fields=job.request.fields,
        ) as writer,
    ):
        for number, shard in enumerate(job.listing):
            rows = [replace(row, flags=None, model=job.request.model) for row in read_rows(job, number)]
            if isinstance(writer, ShardWriter):
                writer.write_shard(shard, rows)
            else:
                for row in rows:
                    writer.write(row)
            task.advance(len(rows))
    for note in getattr(writer, "notes", ()):
        progress.info(note)
    existing: ExistingCaptions | None = getattr(writer, "existing", None)
    unwritten: dict[str, str] = getattr(writer, "unwritten", {})
    for image, reason in [*unwritten.items()][:MAX_WARNINGS]:
        progress.warn(f"{image}: captioned, but its file was not written: {reason}")
    if len(unwritten) > MAX_WARNINGS:
        progress.warn(f"{len(unwritten) - MAX_WARNINGS:,} more files were not written.")
    return 0 if existing is None else existing.preserved, len(unwritten)


def _write_failures(job: Job) -> dict[int, ShardCount]:
    counts = count_rows(job, job.done())
    lines = [
        json.dumps({**row.to_json(), "shard": _name(job, number)}) + "\n"
        for number, count in counts.items()
        for row in count.failed
    ]
    job.request.store.publish(FAILURES, "".join(lines).encode())
    return counts


def _count(job: Job, number: int) -> ShardCount:
    name = _name(job, number)
    format, count = job.request.format, job.listing[number].count
    data = job.request.store.read(name)
    if count is not None and not format.has_failures(data):
        return ShardCount(count, ())
    rows = list(format.decode(data, name))
    return ShardCount(len(rows), tuple(row for row in rows if row.status == "error"))


def _write_duplicates(job: Job, numbers: list[int], progress: Progress) -> int | None:
    """Write `duplicates.jsonl`; returns how many pairs there are, None where there are too many images to compare."""
    store = job.request.store
    with progress.task("Looking for near-duplicates"):
        duplicates = find_duplicate_images(store, numbers)
    if duplicates is None:
        progress.warn(f"Near-duplicates are searched among up to {MAX_COMPARED:,} images; this job has more.")
        return None
    indices: dict[int, set[int]] = {}
    for pair in duplicates:
        for number, index in (pair.earlier, pair.later):
            indices.setdefault(number, set()).add(index)
    names = {
        (number, index): row.image
        for number, needed in indices.items()
        for index, row in enumerate(read_rows(job, number))
        if index in needed
    }
    store.publish(DUPLICATES, "".join(json.dumps(pair.to_json(names)) + "\n" for pair in duplicates).encode())
    return len(duplicates)


def _name(job: Job, number: int) -> str:
    return shard_name(number, len(job.listing), job.request.format.suffix)
