"""How a job ends: what failed, what looks alike, and a file or sidecars made of the shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from captune.app.bulk_start import Job, wait_for_lock
from captune.core.files import disk_error
from captune.core.progress import Progress
from captune.data.bulk.looks import MAX_COMPARED, DuplicateImages, find_duplicate_images
from captune.data.bulk.names import DUPLICATES, FAILURES, MANIFEST, REPORT
from captune.data.bulk.remote import is_remote
from captune.data.bulk.shards import shard_name
from captune.data.writers import ShardWriter, open_writer
from captune.data.writers.existing import ExistingCaptions
from captune.data.writers.row import CaptionRow

MAX_WARNINGS = 20


@dataclass(frozen=True)
class ShardCount:
    """Rows of a shard, and those of them that failed."""

    rows: int
    failed: tuple[CaptionRow, ...]


@dataclass(frozen=True)
class Output:
    """What is made of the shards: a file, or sidecars in a folder, by an ordinary writer."""

    format: str
    out: str


def count_rows(job: Job, numbers: set[int]) -> dict[int, ShardCount]:
    """What shards hold; only those with failures are read row by row."""
    return {number: _counted(job, number) for number in sorted(numbers)}


def read_rows(job: Job, number: int) -> Iterator[CaptionRow]:
    """The rows of a shard; raises `CaptuneError` where it is damaged."""
    name = _name(job, number)
    return job.request.shards.decode(job.request.store.read(name), name)


def write_failures(job: Job, progress: Progress) -> dict[int, ShardCount]:
    """Rewrite `failures.jsonl` from the shards that are there, and count those."""
    with wait_for_lock(job.request.store, "end", progress):
        return _write_failures(job)


@dataclass(frozen=True)
class JobResult:
    """What shards hold and became: duplicates (None: not looked for), a person's captions that stayed, and images
    whose own file could not be written."""

    counted: dict[int, ShardCount]
    duplicates: int | None = None
    preserved: int = 0
    unwritten: int = 0


def finish(job: Job, output: Output | None, progress: Progress) -> JobResult:
    """List failures and, where all shards are in their place, duplicates; make what the job ends in; say it is done."""
    store = job.request.store
    with wait_for_lock(store, "end", progress):
        counted = _write_failures(job)
        if len(counted) < len(job.listing):
            return JobResult(counted)
        duplicates = None
        if not job.request.temporary:
            with progress.task("Looking for near-duplicates"):
                duplicates = find_duplicate_images(store, sorted(counted))
            if duplicates is None:
                progress.warn(f"Near-duplicates are looked for among up to {MAX_COMPARED:,} pictures; these are more.")
            else:
                _write_duplicates(job, duplicates)
        preserved, unwritten = (0, 0) if output is None else _merge(job, output, progress)
        report: dict[str, Any] = {
            "pictures": sum(each.rows for each in counted.values()),
            "failed": sum(len(each.failed) for each in counted.values()),
            "duplicates": None if duplicates is None else len(duplicates),
        }
        if output is not None:
            report["existing"] = job.request.existing
        if not unwritten:  # else the same command tries those again
            store.publish(REPORT, (json.dumps(report, indent=2) + "\n").encode())
        return JobResult(counted, report["duplicates"], preserved, unwritten)


def remove(job: Job) -> None:
    """Remove the folder of a job whose rows stand in a file."""
    store = job.request.store
    store.delete(MANIFEST)  # without it the rest is no job, whenever this is stopped
    for name in store.names() if is_remote(store.location) else ():
        store.delete(name)
    try:
        if not is_remote(store.location):
            shutil.rmtree(store.location)
    except OSError as error:
        raise disk_error(error, store.location) from error


def _merge(job: Job, output: Output, progress: Progress) -> tuple[int, int]:
    """Write what the job ends in; returns how many captions of a person stayed, and of files that were not written."""
    with (
        progress.task(f"Writing {output.out}", job.listing.pictures()) as task,
        open_writer(output.format, output.out, existing=job.request.existing) as writer,
    ):
        for number, shard in enumerate(job.listing):
            rows = [replace(row, flags=None, model=job.request.model) for row in read_rows(job, number)]
            if isinstance(writer, ShardWriter):
                writer.write_shard(shard, rows)
            else:
                for row in rows:
                    writer.write(row)
            task.advance(len(rows))
    for remark in getattr(writer, "notes", ()):
        progress.info(remark)
    existing: ExistingCaptions | None = getattr(writer, "existing", None)
    unwritten: dict[str, str] = getattr(writer, "unwritten", {})
    for image, reason in [*unwritten.items()][:MAX_WARNINGS]:
        progress.warn(f"{image}: captioned, but its file was not written: {reason}")
    if len(unwritten) > MAX_WARNINGS:
        progress.warn(f"{len(unwritten) - MAX_WARNINGS:,} more files were not written.")
    return 0 if existing is None else existing.preserved, len(unwritten)


def _write_failures(job: Job) -> dict[int, ShardCount]:
    counted = count_rows(job, job.done())
    lines = [
        json.dumps({**row.to_json(), "shard": _name(job, number)}) + "\n"
        for number, each in counted.items()
        for row in each.failed
    ]
    job.request.store.publish(FAILURES, "".join(lines).encode())
    return counted


def _counted(job: Job, number: int) -> ShardCount:
    name = _name(job, number)
    shards, known = job.request.shards, job.listing[number].count
    data = job.request.store.read(name)
    if known is not None and not shards.has_failures(data):
        return ShardCount(known, ())
    rows = list(shards.decode(data, name))
    return ShardCount(len(rows), tuple(row for row in rows if row.status == "error"))


def _write_duplicates(job: Job, duplicates: list[DuplicateImages]) -> None:
    wanted: dict[int, set[int]] = {}
    for pair in duplicates:
        for number, place in (pair.earlier, pair.later):
            wanted.setdefault(number, set()).add(place)
    names = {
        (number, place): row.image
        for number, places in wanted.items()
        for place, row in enumerate(read_rows(job, number))
        if place in places
    }
    lines = "".join(json.dumps(pair.to_json(names)) + "\n" for pair in duplicates)
    job.request.store.publish(DUPLICATES, lines.encode())


def _name(job: Job, number: int) -> str:
    return shard_name(number, len(job.listing), job.request.shards.suffix)
