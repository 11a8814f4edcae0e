"""A web server that answers each path as a test says, to the byte: with whatever an attacker sends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# Parts of an answer, in order; a float is a pause in seconds. A path without an answer is closed at once.
Answer = Callable[[str], Iterator[bytes | float]]


@dataclass
class RawServer:
    """`answers` by path; `requests` are the heads that came."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = client.recv(65536).decode("latin-1")
            self.requests.append(head)
            answer = self.answers.get(head.split(" ")[1].partition("?")[0])
            for part in answer(head) if answer is not None else ():
                if isinstance(part, float):
                    time.sleep(part)
                else:
                    client.sendall(part)
                    self.sent += len(part)
            client.shutdown(socket.SHUT_WR)


@contextmanager
def raw_server() -> Iterator[RawServer]:
    server = RawServer()
    try:
        yield server
    finally:
        server.close()


def said(*parts: bytes | float) -> Answer:
    """An answer of these parts."""
    return lambda head: iter(parts)


def endless(head: bytes, block: bytes, pause: float = 0.0) -> Answer:
    """A head, and then a block again and again."""

    def answer(_: str) -> Iterator[bytes | float]:
        yield head
        while True:
            yield block
            if pause:
                yield pause

    return answer
