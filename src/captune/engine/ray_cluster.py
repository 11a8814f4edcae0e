"""The Ray cluster that a job works on: meeting it quietly, and who has room for workers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from captune.core.errors import CaptuneError, UsageError, first_line, missing_extra

_ANSWER_SECONDS = 3.0
_AUTO, _LOCAL = "auto", "local"
# Pictures never go through Ray's object store; what it takes by itself is a third of the memory.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class WorkerShare:
    """What a worker has of its node, and for how many of them a node has room."""

    gpus: float
    cores: int
    workers: int


@dataclass(frozen=True)
class Node:
    """A machine of the cluster; `host` names it to people, at `address` Ray's process there is reached."""

    id: str
    host: str
    address: tuple[str, int]
    cores: float
    gpus: float

    def share(self, gpus: float, cores: int | None) -> WorkerShare:
        """Workers with this many GPUs and cores (None: what there is, shared between them)."""
        by_gpus = int(self.gpus / gpus + 1e-6) if gpus else None
        if cores is not None:
            by_cores = int(self.cores / cores)
            return WorkerShare(gpus, cores, by_cores if by_gpus is None else min(by_gpus, by_cores))
        workers = min(by_gpus if by_gpus is not None else 1, int(self.cores))
        return WorkerShare(gpus, int(self.cores / workers) if workers else 0, workers)


def is_there(node: Node) -> bool:
    """Whether Ray answers on a node: the cluster itself hears of a loss later than those who talked to its workers."""
    try:
        with socket.create_connection(node.address, timeout=_ANSWER_SECONDS):
            return True
    except OSError:
        return False


def nodes() -> list[Node]:
    """The nodes of the cluster that are alive as far as it knows, in a fixed order."""
    import ray

    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has, ip = node["Resources"], node["NodeManagerAddress"]
            host = f"{node['NodeManagerHostname']} ({ip})"
            address = (ip, node["NodeManagerPort"])
            found.append(Node(node["NodeID"], host, address, has.get("CPU", 0), has.get("GPU", 0)))
    return sorted(found, key=lambda node: (node.host, node.id))


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be part of a cluster within a block: of one that runs (`auto`, host:port), or of one made for it (`local`).

    None: of the one that runs here, else of a new one. Where this process is in a cluster already, that one is
    taken and kept. Ray's own lines are kept off the terminal. Raises `CaptuneError`.
    """
    try:
        import ray
        from ray._private import worker
    except ImportError:
        raise missing_extra("ray", "ray", "--engine ray") from None
    if address is not None and "://" in address:
        raise UsageError(
            f"--ray-address {address}: a job has to run on a node of its cluster.",
            "Run the same command there, for example with: ray job submit -- captune caption …",
        )
    if ray.is_initialized():
        yield
        return
    # Ray prints what it hears of its processes' ends to stdout, which is for captions.
    printing = worker.print_to_stdstream
    main = threading.current_thread() is threading.main_thread()
    terminate = signal.getsignal(signal.SIGTERM) if main else None
    worker.print_to_stdstream = lambda *given, **more: None
    try:
        _meet(ray, address)
        if main:
            signal.signal(signal.SIGTERM, terminate)  # Ray puts its own in its place
        yield
    finally:
        ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, terminate)
        worker.print_to_stdstream = printing


def _meet(ray: Any, address: str | None) -> None:
    if address != _LOCAL:
        try:
            _init(ray, address or _AUTO)
            return
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            if address is not None or not isinstance(error, ConnectionError):
                raise _not_met(address or _AUTO, error) from error
    try:
        _init(ray, _LOCAL, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise _not_met("on this machine", error) from error


def _init(ray: Any, address: str, **settings: Any) -> None:
    from_environment = os.environ.pop("RAY_ADDRESS", None)  # Ray would prefer it to what it is told
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    finally:
        if from_environment is not None:
            os.environ["RAY_ADDRESS"] = from_environment


def _not_met(address: str, error: Exception) -> CaptuneError:
    return CaptuneError(
        f"The Ray cluster {address} is not reached: {first_line(error)}",
        "Look with `ray status` whether it runs, with the same versions of Python and Ray as here; "
        "--ray-address local works on this machine alone.",
    )
