"""Work of many clients, a batch at a time, in one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# From a key and its items to a result, or an exception, for each; runs in the batcher's thread.
Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Job:
    item: Any
    answer: asyncio.Future[Any]
    since: float


class Batcher:
    """Gathers items with the same key into batches.

    A batch starts when it has `max_batch` items or its first has waited `max_wait` seconds, and the
    thread is free; who has waited longest goes first. An item whose caller
    has left before its batch starts is not worked on. Use it in one event loop; `close` ends it.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch: int,
        max_wait: float,
        name: str = "model",
        watched: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run, self._max_batch, self._max_wait, self._watched = run, max_batch, max_wait, watched
        self._groups: dict[Hashable, list[_Job]] = {}
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"captune-{name}")
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work())

    async def submit(self, key: Hashable, item: Any) -> Any:
        """The result of an item; raises what its work raised."""
        job = _Job(item, self._loop.create_future(), self._loop.time())
        self._groups.setdefault(key, []).append(job)
        self._news.set()
        try:
            return await job.answer
        finally:
            self._forget(key, job)

    async def close(self) -> None:
        """Stop after the batch that is worked on; items that wait are cancelled."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for jobs in self._groups.values():
            for job in jobs:
                job.answer.cancel()
        self._thread.shutdown(wait=False)

    def _forget(self, key: Hashable, job: _Job) -> None:
        jobs = self._groups.get(key)
        if jobs is not None and job in jobs:
            jobs.remove(job)
            if not jobs:
                del self._groups[key]

    async def _work(self) -> None:
        while True:
            while not self._groups:
                self._news.clear()
                await self._news.wait()
            now = self._loop.time()
            # When each group may start: at once where it is full.
            starts = {
                key: jobs[0].since + (0 if len(jobs) >= self._max_batch else self._max_wait)
                for key, jobs in self._groups.items()
            }
            key = min(starts, key=lambda each: starts[each])
            if starts[key] > now:
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), starts[key] - now)
                continue
            jobs = self._groups[key]
            batch, rest = jobs[: self._max_batch], jobs[self._max_batch :]
            if rest:
                self._groups[key] = rest
            else:
                del self._groups[key]
            await self._answer(key, [job for job in batch if not job.answer.done()])

    async def _answer(self, key: Hashable, batch: list[_Job]) -> None:
        if not batch:
            return
        self._watched(len(batch))
        items = [job.item for job in batch]
        for job, result in zip(
            batch, await self._loop.run_in_executor(self._thread, self._results, key, items), strict=True
        ):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    def _results(self, key: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        """The results of a batch; where it fails as a whole each item is tried alone, so that one costs one."""
        try:
            return self._run(key, items)
        except Exception as error:  # noqa: BLE001 - whoever submitted the item gets it
            return [error] if len(items) == 1 else [self._results(key, [item])[0] for item in items]
