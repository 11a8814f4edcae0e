"""Shards on a Ray cluster by a model that one image sends a signal: `python ray_deaths.py ADDRESS FOLDER SIGKILL`."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from captune.core.errors import CaptuneError
from captune.core.progress import SILENT
from captune.core.records import Caption
from captune.core.stores import MANIFEST
from captune.core.stores.local import open_store
from captune.datasets.sources.input_shards import FILES, InputShard
from captune.images.preprocessing import Preprocessing
from captune.jobs.decode_ahead import ShardTask
from captune.jobs.ray_pool import ClusterOptions, RayPool
from captune.jobs.ray_worker import WorkerSpec
from captune.jobs.shard_captioner import BatchCaptioner, ShardOptions
from captune.jobs.shards import PLAIN

SHARDS, DEADLY = 8, 4


def say(deadly: signal.Signals, seen: np.ndarray, prompts: object) -> list[list[Caption]]:
    """A caption each; at a white image the process gets a signal."""
    if seen.mean() > 250:
        os.kill(os.getpid(), deadly)
    return [[Caption("a picture", 0.5)] for _ in seen]


def load(deadly: signal.Signals) -> BatchCaptioner:
    return BatchCaptioner(partial(say, deadly), Preprocessing(16))


def nothing() -> None:
    return None


def main() -> None:
    address, folder, deadly = sys.argv[1], Path(sys.argv[2]), signal.Signals[sys.argv[3]]
    for number in range(SHARDS):
        Image.new("RGB", (16, 16), "white" if number == DEADLY else "red").save(folder / f"{number}.png")
    place = str(folder / "out")
    open_store(place).publish(MANIFEST, b"{}")
    here = sys.modules["ray_deaths"]
    spec = WorkerSpec(place, b"{}", ShardOptions(PLAIN, SHARDS, 4), partial(here.load, deadly), here.nothing)

    def shard(number: int) -> ShardTask:
        name = str(folder / f"{number}.png")
        return ShardTask(number, InputShard(FILES, "", number, 1, (name,)))

    finished, error = [], ""
    task = partial(SILENT.task, "Captioning")
    try:
        with task() as bar:
            pool = RayPool(range(SHARDS), shard, spec, ClusterOptions(address, silence=4), SILENT, bar)
            for each in pool.caption():
                finished.append(each.number)
    except CaptuneError as told:
        error = str(told)
    there = sorted(path.name for path in Path(place).glob("captions-*"))
    print(json.dumps({"finished": sorted(finished), "error": error, "there": there}))


if __name__ == "__main__":
    import ray_deaths  # by its name, so that workers find what it loads

    ray_deaths.main()
