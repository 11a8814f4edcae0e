"""`captune serve` as a process: how it starts, and how it stops under load."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from captune.core.errors import CaptuneError
from captune.core.progress import Silent
from captune.server.server import serve
from copies import Copy
from serving import encoded, picture, save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Starts:
    """`captune serve` with these arguments and environment."""

    def __init__(self, warm: str) -> None:
        self.warm = warm

    def __call__(self, *arguments: str, **environment: str) -> Copy:
        return Copy(self.warm, ["serve", "--device", "cpu", *arguments], **environment)


@pytest.fixture
def start(warm: str) -> Starts:
    return Starts(warm)


@contextmanager
def ready(start: Starts, port: int, *arguments: str, **environment: str) -> Iterator[tuple[Copy, httpx.Client]]:
    process = start("--port", str(port), *arguments, **environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            end = time.monotonic() + 60
            while True:
                assert process.poll() is None, process.stderr
                assert time.monotonic() < end
                try:
                    if client.get("/health/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.02)
            yield process, client
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_sigterm_answers_what_was_accepted_and_nothing_more(start: Starts, model: str) -> None:
    port = free_port()
    found: list[int | str] = []
    with ready(start, port, "--model", f"tiny={model}", "--max-batch", "4", "--max-queue", "64") as (process, client):
        right = client.post("/v1/caption", json={"image": encoded(picture(1)), "max_new_tokens": 40}).json()
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as mine:
                while not stop.is_set():
                    try:
                        answer = mine.post("/v1/caption", json={"image": encoded(picture(1)), "max_new_tokens": 40})
                    except httpx.ConnectError:
                        found.append("closed")
                        return
                    except httpx.TransportError as error:
                        found.append(repr(error))
                        return
                    if answer.status_code == 200:
                        assert answer.json() == right
                    found.append(answer.status_code)
                    if answer.status_code == 503:
                        return

        clients = [threading.Thread(target=load) for _ in range(24)]
        for each in clients:
            each.start()
        while found.count(200) < 30:
            assert any(each.is_alive() for each in clients)
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        states = []
        while process.poll() is None:
            try:
                states.append(client.get("/health/ready").status_code)
            except httpx.TransportError:
                break
            time.sleep(0.005)
        stop.set()
        for each in clients:
            each.join(30)
        process.wait(20)
        assert process.returncode == 0
        assert set(found) <= {200, 503, "closed"}, set(found)
        assert set(states) <= {200, 503}
        assert 200 not in states[1:]
        log = process.stderr
        assert '"event": "stopping"' in log
        assert "Serving tiny at http://127.0.0.1:" in log


def test_requests_that_come_before_the_model_wait_for_it(start: Starts, model: str, tmp_path: Path) -> None:
    port = free_port()
    matcher = save_tiny(tmp_path / "matcher", "matcher")
    process = start("--port", str(port), "--model", f"tiny={model}", "--model", f"matcher={matcher}")
    asked = {"caption": {"image": encoded(picture(1))}, "match": {"image": encoded(picture(1)), "texts": ["a dog"]}}
    answers: dict[str, httpx.Response] = {}

    def ask(route: str) -> None:
        end = time.monotonic() + 60
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            while route not in answers and time.monotonic() < end:
                with suppress(httpx.ConnectError):  # until it listens
                    answers[route] = client.post(f"/v1/{route}", json=asked[route])

    try:
        clients = [threading.Thread(target=ask, args=[route]) for route in asked]
        for each in clients:
            each.start()
        for each in clients:
            each.join(60)
        assert {route: answer.status_code for route, answer in answers.items()} == {"caption": 200, "match": 200}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_drain_has_an_end(start: Starts, model: str) -> None:
    port = free_port()
    slow = ["--drain", "0.3", "--max-batch", "1", "--max-work", "100000", "--max-images", "64"]
    with ready(start, port, "--model", model, *slow) as (process, _):

        def ask() -> None:
            with httpx.Client(timeout=30, trust_env=False) as mine:
                body = {"images": [encoded(picture(n)) for n in range(64)], "num_beams": 64, "min_new_tokens": 25}
                with suppress(httpx.TransportError):
                    mine.post(f"http://127.0.0.1:{port}/v1/captions:batch", json=body)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        asking.join(20)
        assert time.monotonic() - started < 10
        assert process.returncode == 143
        assert "longer than --drain allows" in process.stderr


def test_a_port_that_is_taken(start: Starts, model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start("--model", model, "--port", str(taken.getsockname()[1]))
        assert process.wait(60) == 1
    assert "Address already in use" in process.stderr
    assert "--port 8001" in process.stderr


def test_what_cannot_be_served_ends_with_its_reason(start: Starts, tmp_path: Path) -> None:
    process = start("--model", str(tmp_path / "nothing"), "--port", "0")
    assert process.wait(60) == 1
    assert "There is no model folder" in process.stderr
    assert "Traceback" not in process.stderr


def test_keys_come_from_the_environment(start: Starts, model: str) -> None:
    port = free_port()
    with ready(start, port, "--model", model, CAPTUNE_API_KEYS="me=secret-of-mine") as (process, client):
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret-of-mine"}).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "secret-of-mine" not in process.stderr
        assert '"key": "me"' in process.stderr


class Noted(Silent):
    """What a command warns of."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.mark.parametrize(
    ("host", "keys", "warns"), [("0.0.0.0", "", True), ("0.0.0.0", "me=key", False), ("127.0.0.1", "", False)]
)
def test_a_server_open_to_others_without_keys_warns(host: str, keys: str, warns: bool) -> None:
    noted = Noted()
    with socket.create_server((host, 0)) as taken, pytest.raises(CaptuneError, match="Cannot listen"):
        serve(["m"], host=host, port=taken.getsockname()[1], progress=noted, environment={"CAPTUNE_API_KEYS": keys})
    assert bool(noted.warned) == warns
