"""Jobs on two pretended machines, of which one is killed: the captions are those of one machine, byte for byte."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from captune.models import FAMILIES
from noise import noise
from random_weights import LIVELY
from ray_deaths import DEADLY, SHARDS
from ray_nodes import add_node, at_work, cluster, end, shards, start, until, workers

pytest.importorskip("ray", reason="Ray is not installed: pip install 'captune[ray]'")
pytestmark = pytest.mark.slow

PICTURES, SHARD_SIZE, BAD = 240, 12, (3, 77)
OPTIONS = ("pics", "--model", "model", "--format", "jsonl", "--shard-size", SHARD_SIZE, "--batch-size", 4, "--json")
SOME_FAILED = 3


@pytest.fixture(scope="module")
def folder(warm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, images of which two are broken, and what one machine says of them."""
    here = tmp_path_factory.mktemp("ray")
    torch.manual_seed(0)
    backbone = FAMILIES["blip"].tiny()
    with torch.no_grad():
        LIVELY["blip"](backbone.model)
    backbone.save(here / "model")
    (here / "pics").mkdir()
    for number in range(PICTURES):
        image = noise((40 + number % 7, 36), 30 + number % 50, number).convert("RGB")
        image.paste((number % 256, number * 7 % 256, number * 31 % 256), (3 + number % 9, 5, 30, 25))
        image.save(here / "pics" / f"{number:04}.png")
    for number in BAD:
        (here / "pics" / f"{number:04}.png").write_bytes(b"\x89PNG, and nothing more")
    end(start(warm, *OPTIONS, "--out", "alone", folder=here), SOME_FAILED)
    return here


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    with cluster() as made:
        yield made


def on_ray(warm: str, made: Any, folder: Path, out: str, *more: object) -> Any:
    return start(warm, *OPTIONS, "--out", out, "--engine", "ray", "--ray-address", made.address, *more, folder=folder)


def test_a_killed_worker_a_killed_node_and_one_that_joins(warm: str, folder: Path, ray_cluster: Any) -> None:
    job = on_ray(warm, ray_cluster, folder, "ray")
    first = until(lambda: at_work(ray_cluster), "a worker at work")[0]
    first.suspend()  # it keeps its shards, so that the job cannot end before its node does
    second = until(lambda: [worker for worker in at_work(ray_cluster) if worker != first], "another one")[0]
    until(lambda: shards(folder / "ray"), "the first shard")
    second.kill()
    lost = next(node for node in ray_cluster.worker_nodes if first in workers(ray_cluster, node))
    add_node(ray_cluster)
    until(lambda: set(at_work(ray_cluster)) - {first, second}, "one that takes its place")
    ray_cluster.remove_node(lost, allow_graceful=False)
    out, said = end(job, SOME_FAILED)
    assert " died (" in said
    assert "Lost the node" in said
    report = json.loads(out)
    assert (report["done"], report["failed"], report["whole"]) == (PICTURES, len(BAD), True)
    assert shards(folder / "ray") == shards(folder / "alone")
    until(lambda: not workers(ray_cluster), "the end of the workers")


def test_what_ray_began_is_ended_by_this_process(warm: str, folder: Path, ray_cluster: Any) -> None:
    job = on_ray(warm, ray_cluster, folder, "begun", "--ray-workers", 1)
    until(lambda: at_work(ray_cluster), "a worker at work")[0].suspend()
    job.send_signal(signal.SIGINT)
    _, said = end(job, 130)
    assert "the same command goes on" in said
    until(lambda: not workers(ray_cluster), "the end of the workers")
    assert len(shards(folder / "begun")) < len(shards(folder / "alone"))
    end(start(warm, *OPTIONS, "--out", "begun", folder=folder), SOME_FAILED)
    assert shards(folder / "begun") == shards(folder / "alone")


def test_what_this_process_began_is_ended_by_ray(warm: str, folder: Path, ray_cluster: Any) -> None:
    end(start(warm, *OPTIONS, "--out", "half", "--part", "1/2", folder=folder), SOME_FAILED)
    out, _ = end(on_ray(warm, ray_cluster, folder, "half", "--ray-workers", 1), SOME_FAILED)
    assert json.loads(out)["captioned"] < PICTURES
    assert shards(folder / "half") == shards(folder / "alone")
    before = {path: path.read_bytes() for path in (folder / "pics" / f"{number:04}.png" for number in BAD)}
    for path in before:
        path.write_bytes((folder / "pics" / "0001.png").read_bytes())
    out, _ = end(on_ray(warm, ray_cluster, folder, "half", "--retry-failed", "--ray-workers", 1))
    for path, data in before.items():
        path.write_bytes(data)
    report = json.loads(out)
    assert (report["failed"], report["captioned"]) == (0, len(BAD))


@pytest.mark.parametrize("deadly", ["SIGKILL", "SIGSTOP"])
def test_a_picture_that_ends_every_worker(tmp_path: Path, ray_cluster: Any, deadly: str) -> None:
    """Its shard is named at the end, all others are done; a worker that says nothing any more is as good as dead."""
    script = Path(__file__).parent.parent / "ray_deaths.py"
    done = subprocess.run(
        [sys.executable, str(script), ray_cluster.address, str(tmp_path), deadly],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    good = [number for number in range(SHARDS) if number != DEADLY]
    assert said["finished"] == good
    there = {f"captions-{number:05}.jsonl" for number in good}
    late = {f"captions-{DEADLY:05}.jsonl"} if deadly == "SIGSTOP" else set()  # one that is woken still writes, whole
    assert there <= set(said["there"]) <= there | late
    assert f"shard {DEADLY} (" in said["error"]
    assert f"{DEADLY}.png" in said["error"]
    assert "after 3 workers" in said["error"]


def test_a_model_that_no_node_can_load(warm: str, folder: Path, ray_cluster: Any) -> None:
    shutil.copytree(folder / "model", folder / "cut")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    words = [*OPTIONS, "--out", "never", "--engine", "ray", "--ray-address", ray_cluster.address, "--model", "cut"]
    _, said = end(start(warm, *words, folder=folder), 1)
    assert "cannot be loaded" in said
    assert said.count("is left out") == len(ray_cluster.worker_nodes)


def test_no_node_with_room(warm: str, folder: Path, ray_cluster: Any) -> None:
    _, said = end(on_ray(warm, ray_cluster, folder, "none", "--cpus-per-worker", 50, "--ray-wait", 1), 1)
    assert "has room for a worker" in said
    assert "Nothing is lost" in said
