"""The shards of a job captioned by one model in this process, or by workers on a Ray cluster."""

import os
from collections.abc import Container, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from captune.captions.prompts.choice import Choice
from captune.captions.prompts.styles import style_of, wording_of
from captune.captions.provenance import Provenance
from captune.captions.row import CaptionRow
from captune.core.config import Resolved
from captune.core.errors import CaptuneError
from captune.core.progress import Progress, Task
from captune.core.records import Caption
from captune.core.stores import MANIFEST
from captune.decoding.encoding import prompt_for
from captune.images.workers import cores
from captune.inference.captioner import Captioner, noted_provenance
from captune.inference.captioning import ConcurrentModel, own_words_of
from captune.jobs.decode_ahead import ShardTask
from captune.jobs.finish import MAX_WARNINGS, read_rows
from captune.jobs.manifest import Inputs
from captune.jobs.ray_pool import ClusterOptions, RayPool
from captune.jobs.ray_worker import WorkerSpec
from captune.jobs.request import Job
from captune.jobs.shard_captioner import BatchCaptioner, ShardOptions, caption_shards

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
            stream = _ray_pool(job, todo, retry, progress, task).caption()
        else:
            stream = caption_shards(
                batch_captioner(job.captioner, job.provenance, job.request.choices),
                (_shard_task(job, number, retry) for number in todo),
                job.request.store,
                _shard_options(job, images),
                advance=task.advance,
                check_inputs=job.request.inputs.check_exist,
            )
        with closing(stream):
            for finished in stream:
                captioned += finished.images
                for row in finished.failed[: max(0, MAX_WARNINGS - warned)]:
                    progress.warn(f"{row.image}: {row.error}")
                warned += len(finished.failed)
    if warned > MAX_WARNINGS:
        progress.warn(f"{warned - MAX_WARNINGS:,} more could not be captioned.")
    return captioned


def _shard_options(job: Job, images: int | None) -> ShardOptions:
    """How the shards of a job are captioned, with processes enough for so many images (None: unknown)."""
    values = job.request.values
    useful = cores() if images is None else max(1, images // _IMAGES_PER_PROCESS)
    return ShardOptions(
        job.request.format,
        total=len(job.listing),
        batch_size=values.caption.batch_size,
        workers=min(values.caption.workers or cores(), useful),
        max_pixels=values.caption.max_pixels,
        language=values.translation.language,
        wording=wording_of(job.request.resolved),
        style=style_of(values),
        prompt=_answered(job.captioner),
        fingerprints=not job.request.temporary,
        provenance=job.provenance is not None,
        fields=job.request.fields,
    )


def _answered(captioner: Captioner | None) -> str | None:
    """What captions answer, where they do and it is the same for all."""
    if captioner is None or not captioner.model.codec.answers:
        return None
    return prompt_for("", "", captioner.options.generation.prompt or "") or None


def _shard_task(job: Job, number: int, retry: Container[int]) -> ShardTask:
    """A shard to caption; one in `retry` with its rows, of which only the failed or flagged are captioned."""
    rows = _previous_rows(job, number) if number in retry else ()
    return ShardTask(number, job.listing[number], rows, job.request.values.job.retry_flagged)


def _previous_rows(job: Job, number: int) -> tuple[CaptionRow, ...]:
    """The rows of a shard whose failed images can be captioned again; none where the whole shard has to be."""
    rows = tuple(read_rows(job, number))
    shard = job.listing[number]
    # A shard that could not be read to its end has one row for several images.
    unreadable = any(row.status == "error" and row.image == shard.location for row in rows)
    return () if unreadable or shard.count not in (None, len(rows)) else rows


def batch_captioner(
    captioner: Captioner, provenance: Provenance | None = None, choices: tuple[Choice, ...] | None = None
) -> BatchCaptioner:
    """What captions pixels with a captioner's options, and translates where they ask for that.

    `provenance` has what is known of the model before it is loaded, `choices` are the prompts of --prompts.
    """
    values = captioner.options
    prompts = captioner.prompts(choices=choices)
    translator = captioner.translator(values)
    noted = provenance and noted_provenance(provenance, captioner)
    own_words = partial(own_words_of, captioner.model.codec) if noted and values.caption.own_words else None

    def generate(pixels: np.ndarray, prompt_of_each: Sequence[str | None]) -> list[list[Caption] | CaptuneError]:
        captions = captioner.generate(pixels, values.generation, prompt_of_each)
        if translator is None:
            return captions
        from captune.inference.translation import translated

        stream = translated(((None, each) for each in captions), translator, len(captions))
        return [each for _, each in stream]

    model = captioner.model
    if translator is None and isinstance(model, ConcurrentModel):
        return BatchCaptioner(
            generate,
            model.pixels,
            lambda pixels, prompt: model.submit(pixels, values.generation, prompt),
            model.concurrency,
            noted,
            own_words,
            prompts,
        )
    return BatchCaptioner(generate, model.pixels, provenance=noted, own_words=own_words, prompts=prompts)


_CHECKED = 3  # shards, and images of each, that must exist on a worker's machine


def load_batch_captioner(
    model: str,
    config: Resolved,
    digest: str,
    provenance: Provenance | None = None,
    choices: tuple[Choice, ...] | None = None,
) -> BatchCaptioner:
    """On a worker's machine: the model, if it is the one that the job began with."""
    from captune.models.loading.identity import identity_of

    captioner = Captioner.load(model, config=config, choices=choices)
    identity = identity_of(model)
    if identity is None or identity.digest != digest:
        raise CaptuneError(
            f"The model {model} there is not the one that the job began with.",
            "Put the same files on all nodes, or share their folder.",
        )
    return batch_captioner(captioner, provenance, choices)


def _ray_pool(job: Job, todo: Sequence[int], retry: Container[int], progress: Progress, task: Task) -> RayPool:
    """The workers that caption shards on the cluster of the job's options."""
    ray = job.request.values.job
    cluster = ClusterOptions(ray.ray_address, ray.ray_workers, ray.ray_wait, ray.gpus_per_worker, ray.cpus_per_worker)
    make_task = partial(_shard_task, job, retry=retry)
    return RayPool(todo, make_task, _worker_spec(job, todo), cluster, progress, task)


def _worker_spec(job: Job, todo: Sequence[int]) -> WorkerSpec:
    """What the workers of a job need to know; its paths are absolute."""
    request, manifest = job.request, job.manifest
    assert manifest is not None
    location = request.store.location
    return WorkerSpec(
        location=location if "://" in location else os.path.abspath(location),
        manifest=request.store.read(MANIFEST),
        # Without --workers each worker has as many decoders as cores, which only it knows.
        options=replace(_shard_options(job, None), workers=request.values.caption.workers),
        load=partial(
            load_batch_captioner,
            _absolute(request.model),
            request.resolved,
            manifest.digest,
            job.provenance,
            request.choices,
        ),
        check_inputs=partial(Inputs.check_exist, manifest.inputs),
        folder=manifest.inputs.folder,
        images=_some_images(job, todo),
    )


def _absolute(model: str) -> str:
    """The absolute path of a folder, or of a run with `@last` behind it; a Hub id as it is."""
    path = Path(model.rpartition("@")[0] or model).expanduser()
    return os.path.abspath(Path(model).expanduser()) if path.exists() else model


def _some_images(job: Job, todo: Sequence[int]) -> tuple[str, ...]:
    """Some of the job's images that are files here: a machine without them would report them as missing."""
    names = (name for number in todo[:_CHECKED] for name in islice(job.listing[number].names, _CHECKED))
    return tuple(name for name in names if os.path.isfile(name))
