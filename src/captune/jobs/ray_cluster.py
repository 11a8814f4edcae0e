"""The Ray cluster of a job: connecting to it without output, and which nodes have room for workers."""

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

_CONNECT_SECONDS = 3.0
_AUTO, _LOCAL = "auto", "local"
# Images never go through Ray's object store; its default size is a third of the memory.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True)
class WorkerShare:
    """The GPUs and cores of a worker, and how many such workers a node has room for."""

    gpus: float
    cores: int
    workers: int


@dataclass(frozen=True)
class Node:
    """A machine of the cluster; `host` is its name in messages, `address` that of Ray's process there."""

    id: str
    host: str
    address: tuple[str, int]
    cores: float
    gpus: float

    def share(self, gpus: float, cores: int | None) -> WorkerShare:
        """The share of workers with this many GPUs and cores (None: all cores, divided between them)."""
        by_gpus = int(self.gpus / gpus + 1e-6) if gpus else None
        if cores is not None:
            by_cores = int(self.cores / cores)
            return WorkerShare(gpus, cores, by_cores if by_gpus is None else min(by_gpus, by_cores))
        workers = min(by_gpus if by_gpus is not None else 1, int(self.cores))
        return WorkerShare(gpus, int(self.cores / workers) if workers else 0, workers)


def is_reachable(node: Node) -> bool:
    """Whether Ray answers on a node; the cluster itself notices a lost node later."""
    try:
        with socket.create_connection(node.address, timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def nodes() -> list[Node]:
    """The nodes of the cluster that are alive as far as it knows, in a fixed order."""
    import ray

    alive = []
    for node in ray.nodes():
        if node["Alive"]:
            has, ip = node["Resources"], node["NodeManagerAddress"]
            host = f"{node['NodeManagerHostname']} ({ip})"
            address = (ip, node["NodeManagerPort"])
            alive.append(Node(node["NodeID"], host, address, has.get("CPU", 0), has.get("GPU", 0)))
    return sorted(alive, key=lambda node: (node.host, node.id))


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Within a block, be connected to a running cluster (`auto`, host:port) or to a new one (`local`).

    None: to the one that runs here, else to a new one. A connection that this process has already is used and kept.
    Ray's own output is suppressed. Raises `CaptuneError`.
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
    # Ray reports the ends of its processes on stdout, which is for captions.
    printing = worker.print_to_stdstream
    main = threading.current_thread() is threading.main_thread()
    terminate = signal.getsignal(signal.SIGTERM) if main else None
    worker.print_to_stdstream = lambda *args, **kwargs: None
    try:
        _connect(ray, address)
        if main:
            signal.signal(signal.SIGTERM, terminate)  # Ray sets its own
        yield
    finally:
        ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, terminate)
        worker.print_to_stdstream = printing


def _connect(ray: Any, address: str | None) -> None:
    if address != _LOCAL:
        try:
            _init(ray, address or _AUTO)
            return
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            if address is not None or not isinstance(error, ConnectionError):
                raise _connection_error(address or _AUTO, error) from error
    try:
        _init(ray, _LOCAL, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise _connection_error("on this machine", error) from error


def _init(ray: Any, address: str, **settings: Any) -> None:
    from_environment = os.environ.pop("RAY_ADDRESS", None)  # Ray would prefer it to the address it is given
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    finally:
        if from_environment is not None:
            os.environ["RAY_ADDRESS"] = from_environment


def _connection_error(address: str, error: Exception) -> CaptuneError:
    return CaptuneError(
        f"The Ray cluster {address} is not reached: {first_line(error)}",
        "Look with `ray status` whether it runs, with the same versions of Python and Ray as here; "
        "--ray-address local works on this machine alone.",
    )
