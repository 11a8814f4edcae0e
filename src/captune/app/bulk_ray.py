"""A job on a Ray cluster: what its workers need to know, and how each loads the model."""

from __future__ import annotations

import os
from collections.abc import Container, Generator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from captune.app.bulk_start import Job
from captune.app.bulk_work import batch_captioner, shard_options, shard_tasks
from captune.app.captioner import Captioner
from captune.core.config import Resolved
from captune.core.errors import CaptuneError
from captune.core.options import CaptionConfig
from captune.core.progress import Progress, Task
from captune.data.bulk.manifest import Inputs
from captune.data.bulk.names import MANIFEST

if TYPE_CHECKING:
    from captune.engine.bulk import BatchCaptioner, FinishedShard
    from captune.engine.decoding_ahead import ShardTask
    from captune.engine.ray_worker import WorkerSpec

_CHECKED = 3  # shards, and images of each, that must exist on a worker's machine


def load_batch_captioner(model: str, config: Resolved[CaptionConfig], digest: str) -> BatchCaptioner:
    """On a worker's machine: the model, if it is the one that the job began with."""
    from captune.engine.identity import identity_of

    captioner = Captioner.load(model, config=config)
    identity = identity_of(model)
    if identity is None or identity.digest != digest:
        raise CaptuneError(
            f"The model {model} there is not the one that the job began with.",
            "Put the same files on all nodes, or share their folder.",
        )
    return batch_captioner(captioner)


def run_on_ray(
    job: Job, todo: Sequence[int], retry: Container[int], progress: Progress, task: Task
) -> Generator[FinishedShard]:
    """Caption shards of a job, of those in `retry` only what failed, on the cluster of its options."""
    from captune.engine.ray_pieces import ClusterOptions, caption_on_ray

    def make_task(number: int) -> ShardTask:
        return next(shard_tasks(job, [number], retry))

    ray = job.request.values.job
    cluster = ClusterOptions(ray.ray_address, ray.ray_workers, ray.ray_wait, ray.gpus_per_worker, ray.cpus_per_worker)
    return caption_on_ray(todo, make_task, worker_spec(job, todo), cluster, progress, task)


def worker_spec(job: Job, todo: Sequence[int]) -> WorkerSpec:
    """What the workers of a job need to know; its paths are absolute."""
    from captune.engine.ray_worker import WorkerSpec

    request, manifest = job.request, job.manifest
    assert manifest is not None
    location = request.store.location
    return WorkerSpec(
        location=location if "://" in location else os.path.abspath(location),
        manifest=request.store.read(MANIFEST),
        # Without --workers each worker has as many decoders as cores, which only it knows.
        options=replace(shard_options(job, None), workers=request.values.caption.workers),
        load=partial(load_batch_captioner, _absolute(request.model), request.resolved, manifest.digest),
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
