from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from captune.server.model_worker import Batcher


class Noted:
    """Work that remembers its batches, and waits while `shut`."""

    def __init__(self) -> None:
        self.batches: list[tuple[Hashable, list[Any]]] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, key: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        self.batches.append((key, list(items)))
        self.open.wait(10)
        if "bad" in items:
            raise ValueError("bad")
        return [f"{key}:{item}" for item in items]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_items_with_the_same_key_share_a_batch_and_get_their_own_result() -> None:
    async def go() -> None:
        work = Noted()
        batcher = Batcher(work, max_batch=4, max_wait=0.02)
        found = await asyncio.gather(*(batcher.submit(n % 2, n) for n in range(8)))
        assert found == [f"{n % 2}:{n}" for n in range(8)]
        assert sorted(work.batches, key=str) == [(0, [0, 2, 4, 6]), (1, [1, 3, 5, 7])]
        await batcher.close()

    asyncio.run(go())


def test_a_batch_is_never_larger_than_allowed() -> None:
    async def go() -> None:
        work = Noted()
        batcher = Batcher(work, max_batch=3, max_wait=0)
        await asyncio.gather(*(batcher.submit("k", n) for n in range(10)))
        assert max(len(items) for _, items in work.batches) == 3
        assert sorted(item for _, items in work.batches for item in items) == list(range(10))
        await batcher.close()

    asyncio.run(go())


def test_a_full_batch_does_not_wait_and_a_lonely_one_not_longer_than_allowed() -> None:
    async def go() -> None:
        work = Noted()
        batcher = Batcher(work, max_batch=2, max_wait=0.3)
        loop = asyncio.get_running_loop()
        lonely = asyncio.ensure_future(batcher.submit("lonely", 1))
        await asyncio.sleep(0)
        started = loop.time()
        await asyncio.gather(batcher.submit("full", 1), batcher.submit("full", 2))
        assert loop.time() - started < 0.25
        await lonely
        assert loop.time() - started >= 0.25
        assert [key for key, _ in work.batches] == ["full", "lonely"]
        await batcher.close()

    asyncio.run(go())


def test_one_bad_item_costs_one() -> None:
    async def go() -> None:
        batcher = Batcher(Noted(), max_batch=4, max_wait=0.02)
        found = await asyncio.gather(*(batcher.submit("k", n) for n in (1, "bad", 3)), return_exceptions=True)
        assert found[0] == "k:1"
        assert isinstance(found[1], ValueError)
        assert found[2] == "k:3"
        assert await batcher.submit("k", 4) == "k:4"
        await batcher.close()

    asyncio.run(go())


def test_who_leaves_while_waiting_is_not_worked_on() -> None:
    async def go() -> None:
        work = Noted()
        work.open.clear()
        batcher = Batcher(work, max_batch=1, max_wait=0)
        first = asyncio.ensure_future(batcher.submit("k", "first"))
        await settled()
        second, third = (asyncio.ensure_future(batcher.submit("k", name)) for name in ("second", "third"))
        await settled()
        second.cancel()
        await settled()
        work.open.set()
        assert await first == "k:first"
        assert await third == "k:third"
        assert [items for _, items in work.batches] == [["first"], ["third"]]
        await batcher.close()

    asyncio.run(go())


def test_who_leaves_during_the_work_does_not_stop_the_others() -> None:
    async def go() -> None:
        work = Noted()
        work.open.clear()
        batcher = Batcher(work, max_batch=2, max_wait=0.01)
        first, second = (asyncio.ensure_future(batcher.submit("k", n)) for n in (1, 2))
        await settled()
        await asyncio.sleep(0.05)
        first.cancel()
        work.open.set()
        assert await second == "k:2"
        await batcher.close()

    asyncio.run(go())


def test_closing_cancels_who_waits() -> None:
    async def go() -> None:
        work = Noted()
        work.open.clear()
        batcher = Batcher(work, max_batch=1, max_wait=0)
        waiting = [asyncio.ensure_future(batcher.submit("k", n)) for n in range(3)]
        await settled()
        await batcher.close()
        work.open.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting[2]
        for each in waiting:
            each.cancel()

    asyncio.run(go())
