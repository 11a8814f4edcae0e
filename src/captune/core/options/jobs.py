"""The options of a job that captions into a folder, declared once like those of `captune.core.options`."""

from __future__ import annotations

from typing import Literal

from captune.core.options.option import Options, option


class JobOptions(Options, section="job", panel="A job in a folder"):
    """How a job is divided, and what becomes of one that the folder holds already."""

    shard_size: int = option(1000, "Images in a result file; what a restart does again is at most that.", ge=1)
    part: str = option(
        "1/1", "2/8: only the second of eight parts of the job; they may run at once.", pattern=r"^\d+/\d+$"
    )
    resume: bool = option(True, "Go on with the job that --out holds; --no-resume: stop where it holds one.")
    restart: bool = option(False, "Throw away the job that --out holds and start anew.")
    retry_failed: bool = option(False, "Take the images of a job again that could not be captioned.")
    dry_run: bool = option(False, "Count images and what is done; load and write nothing.")
    engine: Literal["local", "ray"] = option("local", "What works on the job: this process, or a Ray cluster.")
    ray_address: str | None = option(
        None,
        "Ray cluster to work on: host:port, auto (the one that runs here) or local (a new one on this machine). "
        "Default: the one that runs here, else a new one.",
        env="RAY_ADDRESS",
    )
    ray_workers: int = option(0, "Workers on the Ray cluster, each with the model; 0: as many as have room.", ge=0)
    ray_wait: int = option(60, "Seconds to wait for a node where the Ray cluster has none with room.", ge=0)
    gpus_per_worker: float | None = option(
        None, "GPUs of a Ray worker, or a share of one; default: 1 where the cluster has any, else 0.", ge=0
    )
    cpus_per_worker: int | None = option(
        None, "Cores of a Ray worker; default: those of its node shared between the workers there.", ge=1
    )
