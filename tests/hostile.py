"""A server without models, for attacks on what comes before them: a client of bytes and a short clock."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from captune.core.config import resolve
from captune.server.connections import Connection, Connections
from captune.server.server import create_app


class Hostile:
    """A server that runs at `port`; it has no models."""

    def __init__(self, app: Any, port: int) -> None:
        self.app, self.port, self.admission = app, port, app.state.service.admission

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))

    def send(self, data: bytes, source: str = "127.0.0.1") -> bytes:
        """All that is answered to some bytes until the server closes."""
        with self.connect(source) as line:
            line.sendall(data)
            return read_all(line)

    def ask(self, path: str, body: bytes | None = None, method: str = "POST", **headers: str) -> tuple[int, Any]:
        """The status of a request and what its JSON says."""
        answer = self.send(head(path, method, body, **headers) + (body or b""))
        top, _, rest = answer.partition(b"\r\n\r\n")
        return int(top.split()[1]), json.loads(rest)

    def live(self) -> int:
        return self.ask("/health/live", method="GET")[0]

    def until(self, true: Any, seconds: float = 5) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)


def head(path: str, method: str = "POST", body: bytes | None = None, **headers: str) -> bytes:
    """The line and the headers of a request; `content_type` becomes Content-Type."""
    given = {"host": "localhost", "connection": "close", "content_type": "application/json", **headers}
    if body is not None:
        given.setdefault("content_length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(line: socket.socket) -> bytes:
    parts = []
    try:
        while part := line.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"")
    return b"".join(parts)


@contextmanager
def attacked(
    keys: Mapping[str, str] | None = None, connections: Connections | None = None, **options: Any
) -> Iterator[Hostile]:
    """A server with these options, keys and limits of connections."""
    loading: list[asyncio.Task[None]] = []
    app = create_app({}, resolve("serve", flags=options), keys, on_loaded=loading.append)
    if connections is not None:
        app.state.connections = connections
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=Connection, log_config=None, ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"  # noqa: PT018
        time.sleep(0.01)
    try:
        yield Hostile(app, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        assert loading[0].exception() is not None  # there is no model
