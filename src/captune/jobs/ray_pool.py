"""The shards of a job on a Ray cluster: workers on nodes with room; what a lost worker had not finished runs again.

Hand-written, because tasks with Ray's own retries fail 4 of the 7 tests of `tests/journeys/test_ray.py`: they wait
for ever where a worker hangs or no node has room, exclude no node that cannot load the model, and report no death. They
decode nothing ahead either: `benchmarks/bulk_ray.py --pictures 600` took 47 s on two nodes, and takes 29 s like this.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.progress import Progress, Task
from captune.jobs.decode_ahead import ShardTask
from captune.jobs.ray_cluster import Node, WorkerShare, connected, is_reachable, nodes
from captune.jobs.ray_worker import Worker, WorkerFailure, WorkerSpec, WorkerUpdate
from captune.jobs.shard_captioner import FinishedShard

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


def caption_on_ray(
    numbers: Sequence[int],
    make_task: Callable[[int], ShardTask],
    spec: WorkerSpec,
    options: ClusterOptions,
    progress: Progress,
    task: Task,
) -> Generator[FinishedShard]:
    """Caption shards on a cluster, and yield each when it is written.

    `make_task` gives what is sent to a worker for a shard's number. The shards of a lost node or worker run again; a
    shard that has lost three workers is left out, and named in the error at the end. Raises `CaptuneError` where no
    node is left, or none can do the work.
    """
    with connected(options.address):
        pool = _WorkerPool(numbers, make_task, spec, options, progress, task)
        try:
            yield from pool.work()
        finally:
            pool.kill()


@dataclass(eq=False)
class _Worker:
    """A worker, the numbers of its unfinished shards, and how many images of those it has reported as done."""

    node: Node
    actor: Any
    ready: bool = False
    called_at: float = 0.0
    shards: set[int] = field(default_factory=set)
    images: int = 0


class _WorkerPool:
    """The workers of a job, and the shards that are left; arguments as in `caption_on_ray`."""

    def __init__(
        self,
        numbers: Sequence[int],
        make_task: Callable[[int], ShardTask],
        spec: WorkerSpec,
        options: ClusterOptions,
        progress: Progress,
        task: Task,
    ) -> None:
        self._todo, self._make_task, self._spec = deque(numbers), make_task, spec
        self._options, self._progress, self._task = options, progress, task
        self._gpus = options.gpus
        self._workers: set[_Worker] = set()
        # Ray's references to the replies that are waited for, one of each worker.
        self._pending: dict[Any, _Worker] = {}
        self._tries: Counter[int] = Counter()
        self._abandoned: list[int] = []
        self._early_deaths: Counter[str] = Counter()
        self._excluded: dict[str, WorkerFailure] = {}
        # Lost nodes; the cluster lists them as alive for a while.
        self._gone: set[str] = set()
        self._checked_at = -_CHECK_SECONDS
        self._idle_since = 0.0

    def work(self) -> Generator[FinishedShard]:
        import ray

        while self._left():
            if time.monotonic() - self._checked_at >= _CHECK_SECONDS or not self._pending:
                self._check_silence()
                self._spawn()
            answered, _ = ray.wait(list(self._pending), timeout=_CHECK_SECONDS) if self._pending else ([], [])
            for call in answered:
                yield from self._poll(call)
        if self._abandoned:
            raise self._unfinished()

    def kill(self) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers.clear()
        self._pending.clear()

    def _left(self) -> int:
        return len(self._todo) + sum(len(worker.shards) for worker in self._workers)

    def _poll(self, call: Any) -> Generator[FinishedShard]:
        """Handle a worker's reply, and give it its next shards."""
        import ray
        from ray.exceptions import RayError

        worker = self._pending.pop(call)
        try:
            reply: WorkerFailure | WorkerUpdate | None = ray.get(call)
        except RayError as error:
            self._on_worker_died(worker, error)
            return
        if isinstance(reply, WorkerFailure):
            self._exclude(worker, reply)
            return
        if reply is None:  # it has started
            worker.ready = True
            self._report()
        else:
            self._task.advance(reply.images)
            worker.images += reply.images
            for finished in reply.finished:
                worker.images -= finished.images
                worker.shards.discard(finished.number)
                self._early_deaths[worker.node.id] = 0
                yield finished
            if reply.failure is not None:
                self._exclude(worker, reply.failure)
                return
        self._call(worker, worker.actor.poll, tuple(map(self._make_task, self._next(worker))))

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
        alive = [node for node in nodes() if not self._is_gone(node)]
        if self._gpus is None and alive:
            self._gpus = 1.0 if any(node.gpus >= 1 for node in alive) else 0.0
        shares = {node: node.share(self._gpus or 0.0, self._options.cores) for node in alive}
        able = [node for node, share in shares.items() if share.workers]
        shares = {node: shares[node] for node in able if node.id not in self._excluded}
        running = Counter(worker.node.id for worker in self._workers)
        limit = min(self._options.workers or sum(share.workers for share in shares.values()), self._left())
        while len(self._workers) < limit:
            free = [node for node, share in shares.items() if running[node.id] < share.workers]
            if not free:
                break
            node = min(free, key=lambda node: running[node.id])
            running[node.id] += 1
            self._start(node, shares[node])
        if self._workers:
            self._idle_since = 0.0
        else:
            self._wait(alive, able)

    def _check_silence(self) -> None:
        """Give up workers that hang: each answers every second, whatever it does."""
        late = time.monotonic() - self._options.silence
        for call, worker in list(self._pending.items()):
            if worker.ready and worker.called_at < late:
                del self._pending[call]
                self._on_worker_died(worker, TimeoutError(f"no answer for {self._options.silence:g} s"))

    def _is_gone(self, node: Node) -> bool:
        if node.id in self._gone and is_reachable(node):
            self._gone.discard(node.id)
        return node.id in self._gone

    def _start(self, node: Node, share: WorkerShare) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=share.cores,
                num_gpus=share.gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
            )
            .remote(self._spec, share.cores)
        )
        worker = _Worker(node, actor)
        self._workers.add(worker)
        self._call(worker, actor.start)
        self._report()

    def _wait(self, alive: list[Node], able: list[Node]) -> None:
        """Wait for a node; raises `CaptuneError` where all nodes with room are excluded, or after too long."""
        if able:
            failure = self._excluded[able[-1].id]
            raise CaptuneError(f"{failure.host}: {failure.message}", failure.hint)
        now = time.monotonic()
        if not self._idle_since:
            self._idle_since = now
            self._progress.info(f"{_NO_ROOM}; waiting {self._options.wait:g} s for one.")
        if now - self._idle_since >= self._options.wait:
            has = "; ".join(f"{node.host}: {node.cores:g} cores, {node.gpus:g} GPUs" for node in alive) or "no nodes"
            cores = "" if self._options.cores is None else f", {self._options.cores} cores"
            raise CaptuneError(
                f"{_NO_ROOM} ({self._gpus or 0:g} GPUs{cores} each; it has {has}).",
                "Nothing is lost: start nodes, or ask for less with --gpus-per-worker and --cpus-per-worker, and run "
                "the same command again.",
            )
        time.sleep(min(1.0, self._options.wait))

    def _on_worker_died(self, worker: _Worker, error: Exception) -> None:
        """A worker is dead; that counts as a try of its shards only where its node is alive."""
        node_lost = not is_reachable(worker.node)
        shards = f"; {len(worker.shards)} unfinished shards run again" if worker.shards else ""
        if node_lost:
            self._gone.add(worker.node.id)
            self._progress.warn(f"Lost the node {worker.node.host}{shards}.")
        else:
            why = _death_reason(error)
            self._progress.warn(f"A worker on {worker.node.host} died ({why}){shards}.")
            if not worker.shards:
                self._early_deaths[worker.node.id] += 1
                if self._early_deaths[worker.node.id] >= _TRIES:
                    failure = WorkerFailure(
                        worker.node.host,
                        f"Workers die there before they have done anything ({why}).",
                        "Is captune installed there, in the Python that `ray start` was called with? Ray's logs on "
                        "that machine say more (session_latest/logs in its folder).",
                    )
                    self._excluded[worker.node.id] = failure
                    self._progress.warn(f"{worker.node.host} is left out: {failure.message}")
        self._requeue(worker, count_try=not node_lost)

    def _exclude(self, worker: _Worker, failure: WorkerFailure) -> None:
        """A worker cannot go on: its node gets no other worker."""
        if worker.node.id not in self._excluded:
            self._excluded[worker.node.id] = failure
            self._progress.warn(f"{worker.node.host} is left out: {failure.message}")
        self._requeue(worker, count_try=worker.ready)

    def _requeue(self, worker: _Worker, *, count_try: bool) -> None:
        import ray

        ray.kill(worker.actor)
        self._workers.discard(worker)
        self._task.advance(-worker.images)
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
        self._task.note(text + (f", {waiting} starting" if waiting else ""))

    def _unfinished(self) -> CaptuneError:
        named = ", ".join(map(self._named, sorted(self._abandoned)[:5]))
        return CaptuneError(
            f"{len(self._abandoned)} shards were left out, each after {_TRIES} workers that had it died: {named}.",
            "All others are done. The same command tries these again, with --engine local in this process: what "
            "kills it is seen there.",
        )

    def _named(self, number: int) -> str:
        source = self._make_task(number).source
        return f"shard {number} ({source.location or source.names[0]}{', …' if source.count != 1 else ''})"


def _death_reason(error: Exception) -> str:
    """The line of Ray's long message that has the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if "exit detail: " in line:
            return line.partition("exit detail: ")[2].split(". ")[0]
    return lines[-1].rstrip(".") if lines else type(error).__name__
