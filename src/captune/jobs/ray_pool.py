"""The shards of a job on a Ray cluster: workers where there is room; shards of a lost worker run again.

Hand-written, because tasks with Ray's own retries fail 4 of the 7 tests of `tests/journeys/test_ray.py`: they wait
for ever where a worker hangs or no node has room, exclude no node that cannot load the model, and report no death. They
decode nothing ahead either: `benchmarks/bulk_ray.py --pictures 600` took 47 s on two nodes, and takes 29 s like this.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from typing import Any

from captune.core.environment import report_nothing
from captune.core.errors import CaptuneError, UsageError, first_line, missing_extra
from captune.core.progress import Progress, Task
from captune.jobs.decode_ahead import ShardTask
from captune.jobs.ray_worker import Worker, WorkerSpec, WorkerUpdate
from captune.jobs.shard_captioner import FinishedShard

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
    """A machine of the cluster; `host` is its name in messages, `address` that of Ray's process there.

    `free_cores` and `free_gpus` are those that no other work of the cluster takes at the moment.
    """

    id: str
    host: str
    address: tuple[str, int]
    cores: float
    gpus: float
    free_cores: float
    free_gpus: float

    def share(self, gpus: float, cores: int | None) -> WorkerShare:
        """The share of workers with this many GPUs and cores (None: all cores, divided between them)."""
        by_gpus = int(self.gpus / gpus + 1e-6) if gpus else None
        if cores is None:
            workers = min(1 if by_gpus is None else by_gpus, int(self.cores))
            return WorkerShare(gpus, int(self.cores / workers) if workers else 0, workers)
        by_cores = int(self.cores / cores)
        return WorkerShare(gpus, cores, by_cores if by_gpus is None else min(by_gpus, by_cores))

    def has_free(self, share: WorkerShare) -> bool:
        """Whether a worker would begin there now, and not wait for the end of other work."""
        return self.free_cores >= share.cores and self.free_gpus >= share.gpus


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
    from ray._private.state import available_resources_per_node

    alive, unused = [], available_resources_per_node()
    for node in ray.nodes():
        if node["Alive"]:
            has, ip = node["Resources"], node["NodeManagerAddress"]
            free = unused.get(node["NodeID"], {})
            alive.append(
                Node(
                    node["NodeID"],
                    host=f"{node['NodeManagerHostname']} ({ip})",
                    address=(ip, node["NodeManagerPort"]),
                    cores=has.get("CPU", 0),
                    gpus=has.get("GPU", 0),
                    free_cores=free.get("CPU", 0),
                    free_gpus=free.get("GPU", 0),
                )
            )
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
    cluster = address or _AUTO
    try:
        if address != _LOCAL:
            try:
                _init(ray, cluster)
                return
            except ConnectionError:
                if address is not None:
                    raise
        cluster = "on this machine"
        _init(ray, _LOCAL, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES)
    except (RuntimeError, ValueError, OSError) as error:
        raise CaptuneError(
            f"The Ray cluster {cluster} is not reached: {first_line(error)}",
            "Look with `ray status` whether it runs, with the same versions of Python and Ray as here; "
            "--ray-address local works on this machine alone.",
        ) from error


def _init(ray: Any, address: str, **settings: Any) -> None:
    from_environment = os.environ.pop("RAY_ADDRESS", None)  # Ray would prefer it to the address it is given
    report_nothing(os.environ)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    finally:
        if from_environment is not None:
            os.environ["RAY_ADDRESS"] = from_environment


# One is being written, one captioned, one read.
_SHARDS_PER_WORKER = 3
_TRIES = 3
_CHECK_SECONDS = 2.0
_NO_ROOM = "No node of the Ray cluster has room for a worker"


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, how many workers (0: as many as it has room for), and GPUs and cores of each.

    A job ends after `wait` seconds without a node that has room; a worker that does not answer for `silence` seconds
    counts as dead.
    """

    address: str | None = None
    workers: int = 0
    wait: float = 60.0
    gpus: float | None = None
    cores: int | None = None
    silence: float = 600.0


def _freest(nodes: Sequence[Node], shares: Mapping[Node, WorkerShare], running: Mapping[str, int]) -> Node:
    """The node where the next worker begins: one that other work leaves free, of those the one with fewest workers."""
    return min(nodes, key=lambda node: (not node.has_free(shares[node]), running[node.id]))


@dataclass(eq=False)
class _Worker:
    """A worker, the numbers of its unfinished shards, and how many images of those it has reported as done."""

    node: Node
    actor: Any
    ready: bool = False
    called_at: float = 0.0
    shards: set[int] = field(default_factory=set)
    images: int = 0


@dataclass
class RayPool:
    """The workers of a job on a cluster, and the shards that are left.

    `make_task` gives what is sent to a worker for a shard's number. The shards of a lost node or worker run again; a
    shard that has lost three workers is left out, and named in the error at the end.
    """

    numbers: InitVar[Sequence[int]]
    make_task: Callable[[int], ShardTask]
    spec: WorkerSpec
    options: ClusterOptions
    progress: Progress
    task: Task

    def __post_init__(self, numbers: Sequence[int]) -> None:
        self._todo = deque(numbers)
        self._gpus = self.options.gpus
        self._workers: set[_Worker] = set()
        # Ray's references to the replies that are waited for, one of each worker.
        self._pending: dict[Any, _Worker] = {}
        self._tries: Counter[int] = Counter()
        self._abandoned: list[int] = []
        self._early_deaths: Counter[str] = Counter()
        self._excluded: dict[str, CaptuneError] = {}
        # Lost nodes; the cluster lists them as alive for a while.
        self._gone: set[str] = set()
        self._checked_at = -_CHECK_SECONDS
        self._idle_since = 0.0

    def caption(self) -> Generator[FinishedShard]:
        """Yield each shard when it is written; raises `CaptuneError` where no node is left, or none can do the work."""
        with connected(self.options.address):
            import ray

            try:
                while self._left():
                    if time.monotonic() - self._checked_at >= _CHECK_SECONDS or not self._pending:
                        self._check_silence()
                        self._spawn()
                    answered, _ = ray.wait(list(self._pending), timeout=_CHECK_SECONDS) if self._pending else ([], [])
                    for call in answered:
                        yield from self._poll(call)
            finally:
                for worker in self._workers:
                    ray.kill(worker.actor)
        if self._abandoned:
            raise self._unfinished()

    def _left(self) -> int:
        return len(self._todo) + sum(len(worker.shards) for worker in self._workers)

    def _poll(self, call: Any) -> Generator[FinishedShard]:
        """Handle a worker's reply, and give it its next shards."""
        import ray
        from ray.exceptions import RayError

        worker = self._pending.pop(call)
        try:
            update: WorkerUpdate = ray.get(call)
        except RayError as error:
            self._on_worker_died(worker, error)
            return
        self.task.advance(update.images)
        worker.images += update.images
        for finished in update.finished:
            worker.images -= finished.images
            worker.shards.discard(finished.number)
            self._early_deaths[worker.node.id] = 0
            yield finished
        if update.failure is not None:
            self._exclude(worker.node, update.failure)
            self._requeue(worker, count_try=worker.ready)
            return
        if not worker.ready:
            worker.ready = True
            self._report()
        self._call(worker, worker.actor.poll, tuple(map(self.make_task, self._next(worker))))

    def _next(self, worker: _Worker) -> list[int]:
        """Numbers of the shards that a worker gets now; one that has lost a worker before is a worker's only one."""
        numbers: list[int] = []
        limit = min(_SHARDS_PER_WORKER, -(-self._left() // len(self._workers)))
        while self._todo and len(worker.shards) < limit and not any(self._tries[number] for number in worker.shards):
            if self._tries[self._todo[0]] and worker.shards:
                break
            numbers.append(self._todo.popleft())
            worker.shards.add(numbers[-1])
        return numbers

    def _call(self, worker: _Worker, method: Any, *arguments: Any) -> None:
        worker.called_at = time.monotonic()
        self._pending[method.remote(*arguments)] = worker

    def _spawn(self) -> None:
        """Start workers where there is room and work; raises `CaptuneError` after too long without room."""
        self._checked_at = time.monotonic()
        if not self._left():  # the last shards were left out
            return
        alive = nodes()
        self._gone = {node.id for node in alive if node.id in self._gone and not is_reachable(node)}
        alive = [node for node in alive if node.id not in self._gone]
        if self._gpus is None and alive:
            self._gpus = 1.0 if any(node.gpus >= 1 for node in alive) else 0.0
        shares = {node: node.share(self._gpus or 0.0, self.options.cores) for node in alive}
        able = [node for node, share in shares.items() if share.workers]
        shares = {node: shares[node] for node in able if node.id not in self._excluded}
        running = Counter(worker.node.id for worker in self._workers)
        limit = min(self.options.workers or sum(share.workers for share in shares.values()), self._left())
        while len(self._workers) < limit:
            free = [node for node, share in shares.items() if running[node.id] < share.workers]
            if not free:
                break
            node = _freest(free, shares, running)
            running[node.id] += 1
            self._start(node, shares[node])
        if self._workers:
            self._idle_since = 0.0
        else:
            self._wait(alive, able)

    def _check_silence(self) -> None:
        """Give up workers that hang: each answers every second, whatever it does."""
        late = time.monotonic() - self.options.silence
        for call, worker in list(self._pending.items()):
            if worker.ready and worker.called_at < late:
                del self._pending[call]
                self._on_worker_died(worker, TimeoutError(f"no answer for {self.options.silence:g} s"))

    def _start(self, node: Node, share: WorkerShare) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        kind = ray.remote(num_cpus=share.cores, num_gpus=share.gpus, scheduling_strategy=here)(Worker)
        worker = _Worker(node, kind.remote(self.spec, share.cores))
        self._workers.add(worker)
        self._call(worker, worker.actor.start)
        self._report()

    def _wait(self, alive: list[Node], able: list[Node]) -> None:
        """Wait for a node; raises `CaptuneError` where all nodes with room are excluded, or after too long."""
        if able:
            failure = self._excluded[able[-1].id]
            raise CaptuneError(f"{able[-1].host}: {failure.message}", failure.hint)
        now = time.monotonic()
        if not self._idle_since:
            self._idle_since = now
            self.progress.info(f"{_NO_ROOM}; waiting {self.options.wait:g} s for one.")
        if now - self._idle_since >= self.options.wait:
            has = "; ".join(f"{node.host}: {node.cores:g} cores, {node.gpus:g} GPUs" for node in alive) or "no nodes"
            cores = "" if self.options.cores is None else f", {self.options.cores} cores"
            raise CaptuneError(
                f"{_NO_ROOM} ({self._gpus or 0:g} GPUs{cores} each; it has {has}).",
                "Nothing is lost: start nodes, or ask for less with --gpus-per-worker and --cpus-per-worker, and run "
                "the same command again.",
            )
        time.sleep(min(1.0, self.options.wait))

    def _on_worker_died(self, worker: _Worker, error: Exception) -> None:
        """A worker is dead; that counts as a try of its shards only where its node is alive."""
        node, why = worker.node, _death_reason(error)
        shards = f"; {len(worker.shards)} unfinished shards run again" if worker.shards else ""
        if not is_reachable(node):
            self._gone.add(node.id)
            self.progress.warn(f"Lost the node {node.host}{shards}.")
            self._requeue(worker, count_try=False)
            return
        self.progress.warn(f"A worker on {node.host} died ({why}){shards}.")
        self._early_deaths[node.id] += not worker.shards
        if not worker.shards and self._early_deaths[node.id] >= _TRIES:
            message = f"Workers die there before they have done anything ({why})."
            hint = (
                "Is captune installed there, in the Python that `ray start` was called with? Ray's logs on that "
                "machine have more details (session_latest/logs in its folder)."
            )
            self._exclude(node, CaptuneError(message, hint))
        self._requeue(worker, count_try=True)

    def _exclude(self, node: Node, failure: CaptuneError) -> None:
        """A node gets no other worker."""
        if node.id not in self._excluded:
            self._excluded[node.id] = failure
            self.progress.warn(f"{node.host} is left out: {failure.message}")

    def _requeue(self, worker: _Worker, *, count_try: bool) -> None:
        import ray

        ray.kill(worker.actor)
        self._workers.discard(worker)
        self.task.advance(-worker.images)
        for number in sorted(worker.shards, reverse=True):
            self._tries[number] += count_try
            if self._tries[number] >= _TRIES:
                self._abandoned.append(number)
            else:
                self._todo.appendleft(number)
        worker.shards.clear()
        self._report()

    def _report(self) -> None:
        ready = [worker.node.id for worker in self._workers if worker.ready]
        waiting = len(self._workers) - len(ready)
        text = f"{len(ready)} workers on {len(set(ready))} nodes"
        self.task.note(text + (f", {waiting} starting" if waiting else ""))

    def _unfinished(self) -> CaptuneError:
        sources = {number: self.make_task(number).source for number in sorted(self._abandoned)[:5]}
        named = ", ".join(
            f"shard {number} ({source.location or source.names[0]}{', …' if source.count != 1 else ''})"
            for number, source in sources.items()
        )
        return CaptuneError(
            f"{len(self._abandoned)} shards were left out, each after {_TRIES} workers that had it died: {named}.",
            "All others are done. The same command tries these again, with --engine local in this process, "
            "which shows what kills it.",
        )


def _death_reason(error: Exception) -> str:
    """The line of Ray's long message that has the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if "exit detail: " in line:
            return line.partition("exit detail: ")[2].split(". ")[0]
    return lines[-1].rstrip(".") if lines else type(error).__name__
