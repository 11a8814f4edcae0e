"""A stand-in for an OpenAI-compatible server: it answers as a test's script says, and remembers what it was asked."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Asked:
    """A request as it came."""

    body: dict[str, Any]
    key: str | None
    at: float = field(default_factory=time.monotonic)

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"][-1]["text"])

    @property
    def image(self) -> Image.Image:
        address = self.body["messages"][-1]["content"][0]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


@dataclass
class Reply:
    """What is sent: `body` as JSON or as bytes, after `wait` seconds; `hang_up` breaks off in the middle."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    hang_up: bool = False


def said(text: str | None, reason: str = "stop", tokens: tuple[int, int] = (100, 10), **message: Any) -> Reply:
    """A chat completion of this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Reply({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


Script = Callable[[Asked, int], Reply]


@dataclass
class StandIn:
    """`name` is what captune calls its model; `asked` grows with each request."""

    url: str
    script: Script
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def name(self) -> str:
        return f"openai:a-model@{self.url}"


@contextmanager
def stand_in(script: Script = lambda asked, number: said("a dog on the beach")) -> Iterator[StandIn]:
    """A server whose `script` has the reply to each request, with its number from 0."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(Reply({"object": "list", "data": [{"id": "a-model"}, {"id": "another"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.asked)
                server.asked.append(Asked(body, self.headers.get("Authorization")))
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                reply = server.script(server.asked[number], number)
                time.sleep(reply.wait)
            finally:
                with lock:
                    server.at_once -= 1
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if reply.hang_up else content)
            self.close_connection = self.close_connection or reply.hang_up

        def log_message(self, *given: Any) -> None:
            """Nothing on the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = StandIn(f"http://127.0.0.1:{http.server_port}/v1", script)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
