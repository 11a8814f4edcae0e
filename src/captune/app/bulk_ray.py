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
from captune.app.bulk_work import manner_of, shards_of, speaker
from captune.app.captioner import Captioner
from captune.core.config import Resolved
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import CaptionConfig
from captune.core.progress import Progress, Task
from captune.data.bulk.manifest import Inputs
from captune.data.bulk.names import MANIFEST

if TYPE_CHECKING:
    from captune.engine.bulk import Finished, Manner
    from captune.engine.decoding_ahead import Shard
    from captune.engine.ray_worker import Duty, Speaker

_LOOKED_FOR = 3
_ONLY_RAY = ("ray_address", "ray_workers", "ray_wait", "gpus_per_worker", "cpus_per_worker")


def check_engine(resolved: Resolved[CaptionConfig]) -> None:
    """Raise `UsageError` where flags are given that only Ray understands, and the engine is another."""
    if resolved.values.job.engine == "ray":
        return
    for name in _ONLY_RAY:
        if resolved.sources.get(f"job.{name}", "").startswith("--"):
            raise UsageError(f"{resolved.sources[f'job.{name}']} needs --engine ray.", "Add it, or leave both out.")


def load_speaker(model: str, config: Resolved[CaptionConfig], digest: str) -> Speaker:
    """On a worker's machine: the model, if it is the one that the job began with."""
    from captune.engine.identity import identity_of
    from captune.engine.ray_worker import Speaker

    captioner = Captioner.load(model, config=config)
    identity = identity_of(model)
    if identity is None or identity.digest != digest:
        raise CaptuneError(
            f"The model {model} there is not the one that the job began with.",
            "Put the same files on all nodes, or share their folder.",
        )
    return Speaker(speaker(captioner), captioner.model.pixels)


def work_on_ray(
    job: Job, todo: Sequence[int], again: Container[int], progress: Progress, task: Task
) -> Generator[Finished]:
    """Caption shards of a job, of those in `again` what failed, on the cluster that its options name."""
    from captune.engine.ray_pieces import Room, caption_on_ray

    def shard(number: int) -> Shard:
        return next(shards_of(job, [number], again))

    options = job.asked.resolved.values.job
    # Without --workers each worker has as many decoders as cores, which only it knows.
    manner = replace(manner_of(job, None), workers=job.asked.resolved.values.caption.workers)
    room = Room(
        options.ray_address, options.ray_workers, options.ray_wait, options.gpus_per_worker, options.cpus_per_worker
    )
    return caption_on_ray(todo, shard, duty_of(job, todo, manner), room, progress, task)


def duty_of(job: Job, todo: Sequence[int], manner: Manner) -> Duty:
    """What workers are told of a job; all that is a path here is one from the root."""
    from captune.engine.ray_worker import Duty

    asked, manifest = job.asked, job.manifest
    assert manifest is not None
    place = asked.store.place
    return Duty(
        place=place if "://" in place else os.path.abspath(place),
        manifest=asked.store.read(MANIFEST),
        manner=manner,
        load=partial(load_speaker, _from_root(asked.model), asked.resolved, manifest.digest),
        check_there=partial(Inputs.check_there, manifest.inputs),
        folder=manifest.inputs.folder,
        pictures=_some_pictures(job, todo),
    )


def _from_root(model: str) -> str:
    """A folder, or a run with `@last` behind it, from the root; a Hub id as it is."""
    path = Path(model.rpartition("@")[0] or model).expanduser()
    return os.path.abspath(Path(model).expanduser()) if path.exists() else model


def _some_pictures(job: Job, todo: Sequence[int]) -> tuple[str, ...]:
    """Some of the job's pictures that are files here: a machine without them would call them missing."""
    names = (name for number in todo[:_LOOKED_FOR] for name in islice(job.listing[number].names, _LOOKED_FOR))
    return tuple(name for name in names if os.path.isfile(name))
