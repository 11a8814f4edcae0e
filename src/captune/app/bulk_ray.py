"""A job on a Ray cluster: what its workers are told, and how each loads the model."""

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
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import CaptionConfig
from captune.core.progress import Progress, Task
from captune.data.bulk.manifest import Inputs
from captune.data.bulk.names import MANIFEST

if TYPE_CHECKING:
    from captune.engine.bulk import FinishedShard, ShardOptions
    from captune.engine.decoding_ahead import ShardTask
    from captune.engine.ray_worker import BatchCaptioner, WorkerSpec

_CHECKED = 3
_ONLY_RAY = ("ray_address", "ray_workers", "ray_wait", "gpus_per_worker", "cpus_per_worker")


def check_engine(resolved: Resolved[CaptionConfig]) -> None:
    """Raise `UsageError` where flags are given that only Ray understands, and the engine is another."""
    if resolved.values.job.engine == "ray":
        return
    for name in _ONLY_RAY:
        if resolved.sources.get(f"job.{name}", "").startswith("--"):
            raise UsageError(f"{resolved.sources[f'job.{name}']} needs --engine ray.", "Add it, or leave both out.")


def load_batch_captioner(model: str, config: Resolved[CaptionConfig], digest: str) -> BatchCaptioner:
    """On a worker's machine: the model, if it is the one that the job began with."""
    from captune.engine.identity import identity_of
    from captune.engine.ray_worker import BatchCaptioner

    captioner = Captioner.load(model, config=config)
    identity = identity_of(model)
    if identity is None or identity.digest != digest:
        raise CaptuneError(
            f"The model {model} there is not the one that the job began with.",
            "Put the same files on all nodes, or share their folder.",
        )
    return BatchCaptioner(batch_captioner(captioner), captioner.model.pixels)


def work_on_ray(
    job: Job, todo: Sequence[int], retry: Container[int], progress: Progress, task: Task
) -> Generator[FinishedShard]:
    """Caption shards of a job, of those in `again` what failed, on the cluster that its options name."""
    from captune.engine.ray_pieces import ClusterOptions, caption_on_ray

    def shard(number: int) -> ShardTask:
        return next(shard_tasks(job, [number], retry))

    values = job.request.resolved.values
    ray = values.job
    cluster = ClusterOptions(ray.ray_address, ray.ray_workers, ray.ray_wait, ray.gpus_per_worker, ray.cpus_per_worker)
    # Without --workers each worker has as many decoders as cores, which only it knows.
    options = replace(shard_options(job, None), workers=values.caption.workers)
    return caption_on_ray(todo, shard, worker_spec(job, todo, options), cluster, progress, task)


def worker_spec(job: Job, todo: Sequence[int], options: ShardOptions) -> WorkerSpec:
    """What workers are told of a job; all that is a path here is one from the root."""
    from captune.engine.ray_worker import WorkerSpec

    request, manifest = job.request, job.manifest
    assert manifest is not None
    place = request.store.location
    return WorkerSpec(
        location=place if "://" in place else os.path.abspath(place),
        manifest=request.store.read(MANIFEST),
        options=options,
        load=partial(load_batch_captioner, _from_root(request.model), request.resolved, manifest.digest),
        check_there=partial(Inputs.check_there, manifest.inputs),
        folder=manifest.inputs.folder,
        pictures=_some_images(job, todo),
    )


def _from_root(model: str) -> str:
    """A folder, or a run with `@last` behind it, from the root; a Hub id as it is."""
    path = Path(model.rpartition("@")[0] or model).expanduser()
    return os.path.abspath(Path(model).expanduser()) if path.exists() else model


def _some_images(job: Job, todo: Sequence[int]) -> tuple[str, ...]:
    """Some of the job's pictures that are files here: a machine without them would call them missing."""
    names = (name for number in todo[:_CHECKED] for name in islice(job.listing[number].names, _CHECKED))
    return tuple(name for name in names if os.path.isfile(name))
