"""The server's process ends at its time, whatever its threads are doing."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from captune.core.errors import EXIT_TERMINATED
from captune.server.middleware import Admission
from captune.server.server import ExitTimer, _Server


def test_the_last_time_counts() -> None:
    ended: list[int] = []
    exit_timer = ExitTimer(ended.append)
    exit_timer.start(0.05, lambda: 1)
    exit_timer.start(0.1, lambda: 2)
    time.sleep(0.2)
    exit_timer.start(0.05, lambda: 3)
    exit_timer.cancel()
    time.sleep(0.1)
    assert ended == [2]


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [True, False])
def test_drain_ends_when_it_says(blocked: bool) -> None:
    ended: list[float] = []
    killed: list[bool] = []
    begun = time.monotonic()
    admission = Admission(2, 100)
    admission.acquire()
    service: Any = SimpleNamespace(admission=admission, decoder=SimpleNamespace(kill=lambda: killed.append(True)))

    def end(code: int) -> None:
        assert code == EXIT_TERMINATED
        ended.append(time.monotonic() - begun)

    async def stop() -> None:
        server = _Server(uvicorn.Config("none:none"), service, 0.1, ExitTimer(end))
        server._stop()
        if blocked:
            time.sleep(1.0)  # the event loop itself
        await asyncio.sleep(0.9)

    asyncio.run(stop())
    assert len(ended) == 1
    assert 0.1 < ended[0] < 0.9
    assert killed == [True]
