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

# Nobody asks for the workers' logs: a process less on each node.
NODE = {"object_store_memory": 80 * 1024 * 1024, "include_log_monitor": False}
# Ray lowers the priority of its workers: beside other tests they would get next to no time.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "RAY_worker_niceness": "0"}


@contextmanager
def cluster(nodes: int = 2) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a head that works on nothing, and `nodes` with one core each."""
    os.environ.update(SETTINGS)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            add_node(made)
        yield made
    finally:
        made.shutdown()


def add_node(made: Any) -> Any:
    return made.add_node(**NODE, num_cpus=1)


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
        time.sleep(0.1)  # who looks at all processes more often takes a core
    raise AssertionError(f"not within {seconds:g} s: {what}")


def workers(made: Any, node: Any = None) -> list[psutil.Process]:
    """Processes of captune's workers on a cluster, or on one node of it."""
    nodes = made.list_all_nodes() if node is None else [node]
    raylets = {each.all_processes["raylet"][0].process.pid for each in nodes}
    began = [process for process in psutil.process_iter(["ppid"]) if process.info["ppid"] in raylets]
    return [process for process in began if "ray::Worker" in _named(process)]


def at_work(made: Any) -> list[psutil.Process]:
    """Those of them that are captioning: they have processes that open pictures."""
    return [worker for worker in workers(made) if _children(worker)]


def _named(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def shards(folder: Path) -> dict[str, bytes]:
    """The result shards in a folder, and the list of failures."""
    files = [*sorted(folder.glob("captions-*")), folder / "_job" / "failures.jsonl"]
    return {file.name: file.read_bytes() for file in files if file.is_file()}
