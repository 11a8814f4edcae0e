"""Models that take turns under a limit of memory: none is kept out by the clients of another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from captune.core.config import resolve
from captune.server.model_pool import ModelPool, ServedModel


class Weights:
    """A model of a megabyte."""

    model: Any

    def __init__(self) -> None:
        self.model = self

    def parameters(self) -> Iterator[Any]:
        yield self

    def buffers(self) -> Iterator[Any]:
        yield from ()

    def numel(self) -> int:
        return 1_000_000

    def element_size(self) -> int:
        return 1


def pool(*names: str, timeout: float) -> ModelPool:
    def load(model: ServedModel) -> Weights:
        time.sleep(0.01)
        return Weights()

    config = resolve("serve", flags={"memory": 0.0015, "timeout": timeout})
    found = ModelPool(dict.fromkeys(names, "nowhere"), config, load=load)
    for model in found.models.values():
        model.weights = 1_000_000
    return found


async def used(models: ModelPool, name: str, seconds: float) -> None:
    async with models.use(models.models[name]):
        await asyncio.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("rivals", [1, 16])
def test_clients_of_one_model_do_not_keep_another_out(rivals: int) -> None:
    async def work() -> None:
        models, done = pool("a", "b", timeout=1.0), {"a": 0, "b": 0}

        async def client(name: str, seconds: float) -> None:
            while True:
                await used(models, name, seconds)
                done[name] += 1

        clients = [asyncio.ensure_future(client("a", 0.03 + n / 1000)) for n in range(rivals)]
        clients.append(asyncio.ensure_future(client("b", 0.01)))
        async with asyncio.timeout(30):
            while done["b"] < 3 or done["a"] < 3 * rivals:
                assert not any(each.done() for each in clients)
                await asyncio.sleep(0.01)
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await models.close()

    asyncio.run(work())


@pytest.mark.slow
def test_a_long_request_keeps_its_model_open_to_others_now_and_then() -> None:
    async def work() -> float:
        models = pool("a", "b", timeout=0.4)
        stream = asyncio.ensure_future(used(models, "a", 0.8))
        await asyncio.sleep(0.05)
        wants = asyncio.ensure_future(used(models, "b", 0))
        await asyncio.sleep(0.1)  # the turn of a is over
        begun = time.monotonic()
        await used(models, "a", 0)
        waited = time.monotonic() - begun
        assert not stream.done()
        await wants
        await models.close()
        return waited

    assert asyncio.run(work()) < 0.3


def test_who_leaves_while_waiting_leaves_the_others_in_peace() -> None:
    async def work() -> None:
        models = pool("a", "b", timeout=0.4)
        long = asyncio.ensure_future(used(models, "a", 0.5))
        await asyncio.sleep(0.05)
        wants = asyncio.ensure_future(used(models, "b", 0))
        await asyncio.sleep(0.1)
        wants.cancel()
        async with asyncio.timeout(0.2):
            await used(models, "a", 0)
        await long
        await models.close()

    asyncio.run(work())
