"""The shards of a job captioned: by one model in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Iterator
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
    from captune.engine.bulk import BatchCaptioner, FinishedShard, ShardOptions
    from captune.engine.decoding_ahead import ShardTask

_IMAGES_PER_PROCESS = 16


def run_shards(job: Job, todo: list[int], retry: set[int], progress: Progress) -> int:
    """Caption the shards `todo`; of those in `retry`, only what failed. Returns how many images were captioned.

    Without `job.captioner` they are captioned on the job's Ray cluster.
    """
    images, total = job.listing.count_images(todo), job.listing.count_images(job.numbers)
    done = 0 if total is None or images is None else total - images
    captioned = warned = 0
    with progress.task("Captioning", total, done) as task:
        if job.captioner is None:
            from captune.app.bulk_ray import run_on_ray

            stream = run_on_ray(job, todo, retry, progress, task)
        else:
            stream = _run_here(job, job.captioner, todo, retry, task)
        with closing(stream):
            for finished in stream:
                captioned += finished.images
                for row in finished.failed[: max(0, MAX_WARNINGS - warned)]:
                    progress.warn(f"{row.image}: {row.error}")
                warned += len(finished.failed)
    if warned > MAX_WARNINGS:
        progress.warn(f"{warned - MAX_WARNINGS:,} more could not be captioned.")
    return captioned


def _run_here(job: Job, captioner: Captioner, todo: list[int], retry: set[int], task: Task) -> Generator[FinishedShard]:
    from captune.engine.bulk import caption_shards

    return caption_shards(
        batch_captioner(captioner),
        shard_tasks(job, todo, retry),
        job.request.store,
        shard_options(job, job.listing.count_images(todo)),
        advance=task.advance,
        check_inputs=job.request.inputs.check_exist,
    )


def shard_options(job: Job, images: int | None) -> ShardOptions:
    """How the shards of a job are captioned, with processes enough for so many images (None: unknown)."""
    from captune.engine.bulk import ShardOptions

    values = job.request.values
    useful = cores() if images is None else max(1, images // _IMAGES_PER_PROCESS)
    return ShardOptions(
        job.request.format,
        total=len(job.listing),
        batch_size=values.caption.batch_size,
        workers=min(values.caption.workers or cores(), useful),
        max_pixels=values.caption.max_pixels,
        language=values.translation.language,
        fingerprints=not job.request.temporary,
    )


def shard_tasks(job: Job, todo: Iterable[int], retry: Container[int] = ()) -> Iterator[ShardTask]:
    """Shards to caption; those in `retry` with their rows, of which only the failed are captioned."""
    from captune.engine.decoding_ahead import ShardTask

    for number in todo:
        yield ShardTask(number, job.listing[number], _previous_rows(job, number) if number in retry else ())


def _previous_rows(job: Job, number: int) -> tuple[CaptionRow, ...]:
    """The rows of a shard whose failed images can be captioned again; none where the whole shard has to be."""
    rows = tuple(read_rows(job, number))
    shard = job.listing[number]
    # A shard that could not be read to its end has one row for several images.
    unreadable = any(row.status == "error" and row.image == shard.location for row in rows)
    return () if unreadable or shard.count not in (None, len(rows)) else rows


def batch_captioner(captioner: Captioner) -> BatchCaptioner:
    """What captions pixels with a captioner's options, and translates where they ask for that."""
    from captune.engine.bulk import BatchCaptioner

    values = captioner.options
    translator = captioner.translator(values)

    def generate(pixels: np.ndarray) -> list[list[Caption]]:
        captions = captioner.generate(pixels, values.generation)
        if translator is None:
            return captions
        from captune.engine.translation import translated

        stream = translated(((None, each) for each in captions), translator, len(captions))
        return [each for _, each in stream if not isinstance(each, CaptuneError)]

    return BatchCaptioner(generate, captioner.model.pixels)
