"""The shards of a job captioned: by one model in this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from captune.app.bulk_end import MAX_WARNINGS, read_rows
from captune.app.bulk_start import Job
from captune.app.captioner import Captioner
from captune.core.errors import CaptuneError
from captune.core.progress import Progress, Task
from captune.core.records import Caption
from captune.data.workers import cores
from captune.data.writers.row import CaptionRow

if TYPE_CHECKING:
    from captune.engine.bulk import FinishedShard, ShardOptions
    from captune.engine.decoding_ahead import ShardTask

_PICTURES_PER_PROCESS = 16


def caption_shards_of(
    job: Job, captioner: Captioner | None, todo: list[int], retry: set[int], progress: Progress
) -> int:
    """Caption the shards `todo`, of those in `again` what failed; without a captioner, on the job's Ray cluster.

    Returns how many pictures were captioned.
    """
    pictures = job.listing.pictures(todo)
    whole = job.listing.pictures(job.numbers)
    before = 0 if whole is None or pictures is None else whole - pictures
    captioned = warned = 0
    with progress.task("Captioning", whole, before) as task:
        if captioner is None:
            from captune.app.bulk_ray import work_on_ray

            stream = work_on_ray(job, todo, retry, progress, task)
        else:
            stream = _work_here(job, captioner, todo, retry, task)
        with closing(stream):
            for finished in stream:
                captioned += finished.pictures
                for row in finished.failed[: max(0, MAX_WARNINGS - warned)]:
                    progress.warn(f"{row.image}: {row.error}")
                warned += len(finished.failed)
    if warned > MAX_WARNINGS:
        progress.warn(f"{warned - MAX_WARNINGS:,} more could not be captioned.")
    return captioned


def _work_here(
    job: Job, captioner: Captioner, todo: list[int], retry: set[int], task: Task
) -> Generator[FinishedShard]:
    from captune.engine.bulk import caption_shards

    return caption_shards(
        batch_captioner(captioner),
        captioner.model.pixels,
        shard_tasks(job, todo, retry),
        job.request.store,
        shard_options(job, job.listing.pictures(todo)),
        advance=task.advance,
        check_missing=job.request.inputs.check_there,
    )


def shard_options(job: Job, pictures: int | None) -> ShardOptions:
    """How the shards of a job are captioned, with processes enough for so many pictures (None: unknown)."""
    from captune.engine.bulk import ShardOptions

    values = job.request.resolved.values
    few = cores() if pictures is None else max(1, pictures // _PICTURES_PER_PROCESS)
    return ShardOptions(
        job.request.shards,
        total=len(job.listing),
        batch_size=values.caption.batch_size,
        workers=min(values.caption.workers or cores(), few),
        max_pixels=values.caption.max_pixels,
        language=values.translation.language,
        fingerprints=not job.request.temporary,
    )


def shard_tasks(job: Job, todo: Iterable[int], retry: Container[int] = ()) -> Iterator[ShardTask]:
    """Shards to caption; those in `again` with their rows, of which only the failed are captioned."""
    from captune.engine.decoding_ahead import ShardTask

    for number in todo:
        yield ShardTask(number, job.listing[number], _previous_rows(job, number) if number in retry else ())


def _previous_rows(job: Job, number: int) -> tuple[CaptionRow, ...]:
    """The rows of a shard that its failed pictures can be captioned into again; none: the whole is done anew."""
    rows = tuple(read_rows(job, number))
    shard = job.listing[number]
    # What could not be read on is a row that stands for several pictures.
    lost = any(row.status == "error" and row.image == shard.location for row in rows)
    return () if lost or shard.count not in (None, len(rows)) else rows


def batch_captioner(captioner: Captioner) -> Callable[[np.ndarray], list[list[Caption]]]:
    """Captions of pixels as the options ask, translated where they ask for that."""
    values = captioner.options
    translator = captioner.translator(values)

    def say(seen: np.ndarray) -> list[list[Caption]]:
        found = captioner.generate(seen, values.generation)
        if translator is None:
            return found
        from captune.engine.translation import translated

        stream = translated(((None, each) for each in found), translator, len(found))
        return [said for _, said in stream if not isinstance(said, CaptuneError)]

    return say
