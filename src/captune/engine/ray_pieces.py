"""The shards of a job on a Ray cluster: workers where there is room; what a lost one had in hand runs again."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.progress import Progress, Task
from captune.engine.bulk import Finished
from captune.engine.decoding_ahead import Shard
from captune.engine.ray_cluster import Node, Share, connected, is_there, nodes
from captune.engine.ray_worker import Duty, Ready, Refused, Told, Worker

# One is being written, one captioned, one read.
_IN_HAND = 3
_TRIES = 3
_LOOK_SECONDS = 2.0
_NO_PLACE = "No node of the Ray cluster has room for a worker"


@dataclass(frozen=True)
class Room:
    """Which cluster, and what its workers get: how many of them (0: all that have room), GPUs and cores of each.

    `wait` seconds may pass without a node that has room, `silence` until a worker that does not answer counts as dead.
    """

    address: str | None = None
    workers: int = 0
    wait: float = 60.0
    gpus: float | None = None
    cores: int | None = None
    silence: float = 600.0


def caption_on_ray(
    numbers: Sequence[int], shard: Callable[[int], Shard], duty: Duty, room: Room, progress: Progress, task: Task
) -> Generator[Finished]:
    """Caption shards on a cluster, and yield each when it is in its place.

    `shard` makes what is sent to a worker of a number. A lost node's or worker's shards run again; a shard whose
    worker dies three times is left out, and named in the error at the end. Raises `CaptuneError` where no node is
    left, or none can do the work.
    """
    with connected(room.address):
        crew = _Crew(numbers, shard, duty, room, progress, task)
        try:
            yield from crew.work()
        finally:
            crew.dismiss()


@dataclass(eq=False)
class _Member:
    """A worker, what it has in hand, and how many pictures it told of that are in no finished shard yet."""

    node: Node
    actor: Any
    ready: bool = False
    asked_at: float = 0.0
    held: set[int] = field(default_factory=set)
    pictures: int = 0


class _Crew:
    """All workers of a job, and what is left to do."""

    def __init__(
        self,
        numbers: Sequence[int],
        shard: Callable[[int], Shard],
        duty: Duty,
        room: Room,
        progress: Progress,
        task: Task,
    ) -> None:
        self._todo = deque(numbers)
        self._shard, self._duty, self._room, self._progress, self._task = shard, duty, room, progress, task
        self._gpus = room.gpus
        self._members: set[_Member] = set()
        # The answers that are waited for, one of each member.
        self._asked: dict[Any, _Member] = {}
        self._tries: Counter[int] = Counter()
        self._given_up: list[int] = []
        self._deaths: Counter[str] = Counter()
        self._aside: dict[str, Refused] = {}
        # Lost nodes: the cluster may take them for alive for a while.
        self._gone: set[str] = set()
        self._looked = -_LOOK_SECONDS
        self._without = 0.0

    def work(self) -> Generator[Finished]:
        import ray

        while self._left():
            if time.monotonic() - self._looked >= _LOOK_SECONDS or not self._asked:
                self._check_silence()
                self._hire()
            answered, _ = ray.wait(list(self._asked), timeout=_LOOK_SECONDS) if self._asked else ([], [])
            for asked in answered:
                yield from self._hear(asked)
        if self._given_up:
            raise self._unfinished()

    def dismiss(self) -> None:
        import ray

        for member in self._members:
            ray.kill(member.actor)
        self._members.clear()
        self._asked.clear()

    def _left(self) -> int:
        return len(self._todo) + sum(len(member.held) for member in self._members)

    def _hear(self, asked: Any) -> Generator[Finished]:
        """What a worker answers, and its next shards."""
        import ray
        from ray.exceptions import RayError

        member = self._asked.pop(asked)
        try:
            said: Ready | Refused | Told = ray.get(asked)
        except RayError as error:
            self._lost(member, error)
            return
        if isinstance(said, Refused):
            self._set_aside(member, said)
            return
        if isinstance(said, Ready):
            member.ready = True
            self._show()
        else:
            self._task.advance(said.pictures)
            member.pictures += said.pictures
            for finished in said.finished:
                member.pictures -= finished.pictures
                member.held.discard(finished.number)
                self._deaths[member.node.id] = 0
                yield finished
            if said.refused is not None:
                self._set_aside(member, said.refused)
                return
        self._ask(member, member.actor.turn, tuple(map(self._shard, self._next(member))))

    def _next(self, member: _Member) -> list[int]:
        """Numbers of the shards that a worker gets now; one that has cost a worker before is a worker's only one."""
        given: list[int] = []
        most = min(_IN_HAND, -(-self._left() // len(self._members)))
        while self._todo and len(member.held) < most and not any(self._tries[number] for number in member.held):
            if self._tries[self._todo[0]] and member.held:
                break
            given.append(self._todo.popleft())
            member.held.add(given[-1])
        return given

    def _ask(self, member: _Member, method: Any, *given: Any) -> None:
        member.asked_at = time.monotonic()
        self._asked[method.remote(*given)] = member

    def _hire(self) -> None:
        """A worker wherever there is room and work for one; raises `CaptuneError` where there is none for too long."""
        self._looked = time.monotonic()
        if not self._left():  # the last shards were given up
            return
        there = [node for node in nodes() if not self._is_gone(node)]
        if self._gpus is None and there:
            self._gpus = 1.0 if any(node.gpus >= 1 for node in there) else 0.0
        shares = {node: node.share(self._gpus or 0.0, self._room.cores) for node in there}
        able = [node for node, share in shares.items() if share.workers]
        shares = {node: shares[node] for node in able if node.id not in self._aside}
        have = Counter(member.node.id for member in self._members)
        most = min(self._room.workers or sum(share.workers for share in shares.values()), self._left())
        while len(self._members) < most:
            free = [node for node, share in shares.items() if have[node.id] < share.workers]
            if not free:
                break
            node = min(free, key=lambda node: have[node.id])
            have[node.id] += 1
            self._start(node, shares[node])
        if self._members:
            self._without = 0.0
        else:
            self._wait(there, able)

    def _check_silence(self) -> None:
        """A worker answers every second, whatever it does; one that is stopped or hangs keeps its shards from all."""
        late = time.monotonic() - self._room.silence
        for asked, member in list(self._asked.items()):
            if member.ready and member.asked_at < late:
                del self._asked[asked]
                self._lost(member, TimeoutError(f"no answer for {self._room.silence:g} s"))

    def _is_gone(self, node: Node) -> bool:
        if node.id in self._gone and is_there(node):
            self._gone.discard(node.id)
        return node.id in self._gone

    def _start(self, node: Node, share: Share) -> None:
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
            .remote(self._duty, share.cores)
        )
        member = _Member(node, actor)
        self._members.add(member)
        self._ask(member, actor.start)
        self._show()

    def _wait(self, there: list[Node], able: list[Node]) -> None:
        """Until a node comes; raises `CaptuneError` where all that have room were left out, or after too long."""
        if able:
            refused = self._aside[able[-1].id]
            raise CaptuneError(f"{refused.host}: {refused.message}", refused.hint)
        now = time.monotonic()
        if not self._without:
            self._without = now
            self._progress.info(f"{_NO_PLACE}; waiting {self._room.wait:g} s for one.")
        if now - self._without >= self._room.wait:
            has = "; ".join(f"{node.host}: {node.cores:g} cores, {node.gpus:g} GPUs" for node in there) or "no nodes"
            cores = "" if self._room.cores is None else f", {self._room.cores} cores"
            raise CaptuneError(
                f"{_NO_PLACE} ({self._gpus or 0:g} GPUs{cores} each; it has {has}).",
                "Nothing is lost: start nodes, or ask for less with --gpus-per-worker and --cpus-per-worker, and run "
                "the same command again.",
            )
        time.sleep(min(1.0, self._room.wait))

    def _lost(self, member: _Member, error: Exception) -> None:
        """A worker is dead. A shard answers for that only where its node lives on."""
        gone = not is_there(member.node)
        shards = f"; {len(member.held)} unfinished shards run again" if member.held else ""
        if gone:
            self._gone.add(member.node.id)
            self._progress.warn(f"Lost the node {member.node.host}{shards}.")
        else:
            why = _reason(error)
            self._progress.warn(f"A worker on {member.node.host} died ({why}){shards}.")
            if not member.held:
                self._deaths[member.node.id] += 1
                if self._deaths[member.node.id] >= _TRIES:
                    refused = Refused(
                        member.node.host,
                        f"Workers die there before they have done anything ({why}).",
                        "Is captune installed there, in the Python that `ray start` was called with? Ray's logs on "
                        "that machine say more (session_latest/logs in its folder).",
                    )
                    self._aside[member.node.id] = refused
                    self._progress.warn(f"{member.node.host} is left out: {refused.message}")
        self._take_back(member, blame=not gone)

    def _set_aside(self, member: _Member, refused: Refused) -> None:
        """A worker cannot go on: its node gets no other."""
        if member.node.id not in self._aside:
            self._aside[member.node.id] = refused
            self._progress.warn(f"{member.node.host} is left out: {refused.message}")
        self._take_back(member, blame=member.ready)

    def _take_back(self, member: _Member, *, blame: bool) -> None:
        import ray

        ray.kill(member.actor)
        self._members.discard(member)
        self._task.advance(-member.pictures)
        for number in sorted(member.held, reverse=True):
            self._tries[number] += blame
            if self._tries[number] >= _TRIES:
                self._given_up.append(number)
            else:
                self._todo.appendleft(number)
        member.held.clear()
        self._show()

    def _show(self) -> None:
        ready = [member.node.id for member in self._members if member.ready]
        waiting = len(self._members) - len(ready)
        text = f"{len(ready)} workers on {len(set(ready))} nodes"
        self._task.note(text + (f", {waiting} starting" if waiting else ""))

    def _unfinished(self) -> CaptuneError:
        named = ", ".join(map(self._named, sorted(self._given_up)[:5]))
        return CaptuneError(
            f"{len(self._given_up)} shards were left out, each after {_TRIES} workers that had it died: {named}.",
            "All others are done. The same command tries these again, with --engine local in this process: what "
            "kills it is seen there.",
        )

    def _named(self, number: int) -> str:
        piece = self._shard(number).piece
        return f"shard {number} ({piece.place or piece.names[0]}{', …' if piece.count != 1 else ''})"


def _reason(error: Exception) -> str:
    """The one line of Ray's many that says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if "exit detail: " in line:
            return line.partition("exit detail: ")[2].split(". ")[0]
    return lines[-1].rstrip(".") if lines else type(error).__name__
