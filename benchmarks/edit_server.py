"""`captune edit` as a process of its own, for benchmarks that drive its page."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from captune.server.startup import listen


@contextmanager
def edit_server(folder: Path) -> Iterator[tuple[str, int]]:
    """The address of the page of a library, at a free port, and the id of its process."""
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["edit", str(folder), "--port", str(port), "--no-scan", "--quiet"]
    server = subprocess.Popen([sys.executable, "-m", "captune", *command])
    try:
        while True:
            try:
                httpx.get(f"{url}/health/live", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait()
