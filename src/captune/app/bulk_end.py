"""How a job ends: what failed, what looks alike, and a file or sidecars made of the shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from captune.app.bulk_start import Job, waiting
from captune.core.files import disk_error
from captune.core.progress import Progress
from captune.data.bulk.looks import MOST_COMPARED, Alike, find_alike
from captune.data.bulk.names import DUPLICATES, FAILURES, MANIFEST, REPORT
from captune.data.bulk.remote import is_remote
from captune.data.bulk.shards import shard_name
from captune.data.writers import PieceWriter, open_writer
from captune.data.writers.existing import Existing
from captune.data.writers.row import CaptionRow

MOST_WARNINGS = 20


@dataclass(frozen=True)
class Counted:
    """Rows of a shard, and those of them that failed."""

    rows: int
    failed: tuple[CaptionRow, ...]


@dataclass(frozen=True)
class Ending:
    """What is made of the shards: a file, or sidecars in a folder, by an ordinary writer."""

    format: str
    out: str


def count(job: Job, numbers: set[int]) -> dict[int, Counted]:
    """What shards hold; only those with failures are read row by row."""
    return {number: _counted(job, number) for number in sorted(numbers)}


def rows_of(job: Job, number: int) -> Iterator[CaptionRow]:
    """The rows of a shard; raises `CaptuneError` where it is damaged."""
    name = _name(job, number)
    return job.asked.shards.decode(job.asked.store.read(name), name)


def write_failures(job: Job, progress: Progress) -> dict[int, Counted]:
    """Rewrite `failures.jsonl` from the shards that are there, and count those."""
    with waiting(job.asked.store, "end", progress):
        return _write_failures(job)


@dataclass(frozen=True)
class Finish:
    """What shards hold and became: duplicates (None: not looked for), a person's captions that stayed, and images
    whose own file could not be written."""

    counted: dict[int, Counted]
    duplicates: int | None = None
    preserved: int = 0
    unwritten: int = 0


def finish(job: Job, ending: Ending | None, progress: Progress) -> Finish:
    """List failures and, where all shards are in their place, duplicates; make what the job ends in; say it is done."""
    store = job.asked.store
    with waiting(store, "end", progress):
        counted = _write_failures(job)
        if len(counted) < len(job.listing):
            return Finish(counted)
        alike = None
        if not job.asked.temporary:
            with progress.task("Looking for near-duplicates"):
                alike = find_alike(store, sorted(counted))
            if alike is None:
                progress.warn(f"Near-duplicates are looked for among up to {MOST_COMPARED:,} pictures; these are more.")
            else:
                _write_alike(job, alike)
        preserved, unwritten = (0, 0) if ending is None else _merge(job, ending, progress)
        report: dict[str, Any] = {
            "pictures": sum(each.rows for each in counted.values()),
            "failed": sum(len(each.failed) for each in counted.values()),
            "duplicates": None if alike is None else len(alike),
        }
        if ending is not None:
            report["existing"] = job.asked.existing
        if not unwritten:  # else the same command tries those again
            store.publish(REPORT, (json.dumps(report, indent=2) + "\n").encode())
        return Finish(counted, report["duplicates"], preserved, unwritten)


def remove(job: Job) -> None:
    """Remove the folder of a job whose rows stand in a file."""
    store = job.asked.store
    store.delete(MANIFEST)  # without it the rest is no job, whenever this is stopped
    for name in store.names() if is_remote(store.place) else ():
        store.delete(name)
    try:
        if not is_remote(store.place):
            shutil.rmtree(store.place)
    except OSError as error:
        raise disk_error(error, store.place) from error


def _merge(job: Job, ending: Ending, progress: Progress) -> tuple[int, int]:
    """Write what the job ends in; returns how many captions of a person stayed, and of files that were not written."""
    with (
        progress.task(f"Writing {ending.out}", job.listing.pictures()) as task,
        open_writer(ending.format, ending.out, existing=job.asked.existing) as writer,
    ):
        for number, piece in enumerate(job.listing):
            rows = [replace(row, flags=None, model=job.asked.model) for row in rows_of(job, number)]
            if isinstance(writer, PieceWriter):
                writer.write_piece(piece, rows)
            else:
                for row in rows:
                    writer.write(row)
            task.advance(len(rows))
    for remark in getattr(writer, "notes", ()):
        progress.info(remark)
    existing: Existing | None = getattr(writer, "existing", None)
    unwritten: dict[str, str] = getattr(writer, "unwritten", {})
    for image, reason in [*unwritten.items()][:MOST_WARNINGS]:
        progress.warn(f"{image}: captioned, but its file was not written: {reason}")
    if len(unwritten) > MOST_WARNINGS:
        progress.warn(f"{len(unwritten) - MOST_WARNINGS:,} more files were not written.")
    return 0 if existing is None else existing.preserved, len(unwritten)


def _write_failures(job: Job) -> dict[int, Counted]:
    counted = count(job, job.done())
    lines = [
        json.dumps({**row.to_json(), "shard": _name(job, number)}) + "\n"
        for number, each in counted.items()
        for row in each.failed
    ]
    job.asked.store.publish(FAILURES, "".join(lines).encode())
    return counted


def _counted(job: Job, number: int) -> Counted:
    name = _name(job, number)
    shards, known = job.asked.shards, job.listing[number].count
    data = job.asked.store.read(name)
    if known is not None and not shards.has_failures(data):
        return Counted(known, ())
    rows = list(shards.decode(data, name))
    return Counted(len(rows), tuple(row for row in rows if row.status == "error"))


def _write_alike(job: Job, alike: list[Alike]) -> None:
    wanted: dict[int, set[int]] = {}
    for pair in alike:
        for number, place in (pair.earlier, pair.later):
            wanted.setdefault(number, set()).add(place)
    names = {
        (number, place): row.image
        for number, places in wanted.items()
        for place, row in enumerate(rows_of(job, number))
        if place in places
    }
    lines = "".join(json.dumps(pair.to_json(names)) + "\n" for pair in alike)
    job.asked.store.publish(DUPLICATES, lines.encode())


def _name(job: Job, number: int) -> str:
    return shard_name(number, len(job.listing), job.asked.shards.suffix)
