"""A Ray cluster of pretended machines on this one, in which jobs are started as a user does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from copies import Copy

OBJECT_STORE = 80 * 1024 * 1024
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DOCKER_CPU_WARNING": "1"}


@contextmanager
def cluster(nodes: int = 2) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a head that works on nothing, and `nodes` with one core each."""
    os.environ.update(QUIET)
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False},
    )
    try:
        for _ in range(nodes):
            add_node(made)
        yield made
    finally:
        made.shutdown()


def add_node(made: Any) -> Any:
    return made.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)


def start(warm: str, *words: object, folder: Path) -> Copy:
    """`captune caption …` under way."""
    os.environ.pop("RAY_ADDRESS", None)  # of the cluster
    return Copy(warm, ["caption", *map(str, words)], folder=folder)


def end(job: Copy, code: int = 0) -> tuple[str, str]:
    """What a job said on stdout and stderr, when it has ended with this code."""
    job.wait(400)
    assert job.returncode == code, f"{job.returncode}\n{job.stdout}\n{job.stderr}"
    return job.stdout, job.stderr


def until(true: Callable[[], Any], what: str, seconds: float = 240.0) -> Any:
    """What becomes true, or an error that says what did not."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def workers(made: Any, node: Any = None) -> list[psutil.Process]:
    """Processes of captune's workers on a cluster, or on one node of it."""
    nodes = made.list_all_nodes() if node is None else [node]
    raylets = {each.all_processes["raylet"][0].process.pid for each in nodes}
    found = []
    for process in psutil.process_iter(["ppid", "cmdline"]):
        named = "ray::Worker" in " ".join(process.info["cmdline"] or ())
        if named and process.info["ppid"] in raylets:
            found.append(process)
    return found


def at_work(made: Any) -> list[psutil.Process]:
    """Those of them that are captioning: they have processes that open pictures."""
    return [worker for worker in workers(made) if _children(worker)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def shards(folder: Path) -> dict[str, bytes]:
    """The result shards in a folder, and the list of failures."""
    files = [*sorted(folder.glob("captions-*")), folder / "_job" / "failures.jsonl"]
    return {file.name: file.read_bytes() for file in files if file.is_file()}
