"""What a server lets in, and what it does with the rest."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from captune.inference.captioner import Captioner
from captune.server import middleware
from captune.server.connections import Timeouts
from captune.server.model_pool import ServedModel
from serving import Serving, encoded, picture, running, save_tiny

PICTURE = picture(1)
KEYS = {"phone": "a-long-random-key", "web": "another-random-key"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("models") / "blip")


class BlockedCaptioner(Captioner):
    """A captioner that works on and on while its door is not set."""

    door: threading.Event

    def generate(self, *args: Any) -> Any:
        assert self.door.wait(20)
        return super().generate(*args)


@pytest.fixture
def door() -> Iterator[threading.Event]:
    door = threading.Event()
    yield door
    door.set()


@pytest.fixture
def blocked(door: threading.Event) -> dict[str, Any]:
    """Parts of a server whose models work on and on while the door is not set."""

    def load(model: ServedModel) -> Captioner:
        captioner = BlockedCaptioner.load(model.source, device="cpu", precision="fp32")
        captioner.door = door  # type: ignore[attr-defined]
        return captioner

    return {"load": load}


@pytest.fixture(scope="module")
def guarded(model: str) -> Iterator[Serving]:
    with running({"m": model}, KEYS, max_body=1.0, max_pixels=10_000, max_work=200, max_images=3) as serving:
        yield serving


def asked(serving: Serving) -> http.client.HTTPConnection:
    """A request that waits at the model; returns its connection."""
    line = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
    line.request("POST", "/v1/caption", json.dumps({"image": encoded(PICTURE)}), {"Content-Type": "application/json"})
    return line


def test_every_route_but_health_needs_a_key(guarded: Serving) -> None:
    paths = [(route.path, method) for route in guarded.app.routes for method in getattr(route, "methods", ())]
    schema = guarded.app.openapi()["paths"]
    paths += [(path, method.upper()) for path, methods in schema.items() for method in methods]
    assert {("/v1/caption", "POST"), ("/metrics", "GET"), ("/docs", "GET"), ("/openapi.json", "GET")} <= set(paths)
    with guarded.client() as client:
        for path, method in [*paths, ("/nothing", "GET"), ("/v1/caption/", "POST"), ("//metrics", "GET")]:
            for headers in ({}, {"Authorization": ""}):
                answer = client.request(method, path, headers=headers)
                if path in middleware.PUBLIC_PATHS:
                    assert answer.status_code != 401
                else:
                    assert answer.status_code == 401, (path, method)
                    assert answer.headers["www-authenticate"] == "Bearer"
                    if method != "HEAD":
                        assert answer.json()["status"] == 401
        for key in KEYS.values():
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_keys_are_named_in_the_log_and_nothing_else_of_them(guarded: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "captune.server")
    with guarded.client(headers={"Authorization": f"Bearer {KEYS['web']}", "X-Request-ID": "my-id.1"}) as client:
        answer = client.post("/v1/caption", json={"image": encoded(PICTURE)})
    assert answer.headers["x-request-id"] == "my-id.1"

    def lines() -> list[Any]:
        found = [getattr(record, "fields", {}) for record in caplog.records]
        return [fields for fields in found if fields.get("request_id") == "my-id.1"]

    guarded.until(lines)
    (fields,) = lines()
    assert (fields["key"], fields["status"], fields["model"], fields["pictures"]) == ("web", 200, "m", 1)
    everything = " ".join(str(record.__dict__) for record in caplog.records)
    assert KEYS["web"] not in everything
    assert encoded(PICTURE)[:40] not in everything
    with guarded.client() as client:
        bad = client.get("/health/live", headers={"X-Request-ID": 'a" onclick=', "Origin": "https://example.com"})
    assert re.fullmatch("[0-9a-f]{32}", bad.headers["x-request-id"])
    assert "access-control-allow-origin" not in bad.headers


def bomb(side: int) -> bytes:
    """A small PNG that says it has side × side pixels, and does."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), []
    for _ in range(side):
        rows.append(packer.compress(bytes(side + 1)))
    rows.append(packer.flush())
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")


def test_bodies_pictures_and_jobs_have_a_size(guarded: Serving) -> None:
    with guarded.client(headers={"Authorization": f"Bearer {KEYS['phone']}"}) as client:

        def post(status: int, path: str = "/v1/caption", **said: Any) -> dict[str, Any]:
            answer = client.post(path, json={"image": encoded(PICTURE), **said})
            assert answer.status_code == status, answer.text
            body: dict[str, Any] = answer.json()
            return body

        assert client.post("/v1/caption", content=b"x" * 1_100_000).status_code == 413
        assert client.post("/v1/caption", content=(b"x" * 100_000 for _ in range(12))).status_code == 413
        assert client.post("/v1/caption", content=(b"x" * 100_000 for _ in range(9))).status_code == 400
        assert "pixels" in post(422, image=encoded(bomb(8000)))["detail"]
        assert post(422, image=encoded(bomb(8000)))["hint"] == "Make it smaller, or raise max_pixels."
        assert "allowed" in post(422, num_beams=4, max_new_tokens=60)["detail"]
        post(422, variations=10, max_new_tokens=30)
        post(422, num_beams=3, num_captions=3, max_new_tokens=30)
        post(422, num_beams=1, min_new_tokens=9, max_new_tokens=5)
        post(200, num_beams=3, max_new_tokens=30)
        assert post(422, num_beams=1, max_new_tokens=200, prompt="a red " * 200)["detail"].startswith("The prompt")
        errors = post(422, num_beams=100, nonsense=1)["errors"]
        assert {error["field"] for error in errors} == {"num_beams", "nonsense"}
        answer = client.post("/v1/captions:batch", json={"images": [encoded(PICTURE)] * 4})
        assert answer.status_code == 422
        assert client.post("/v1/match", json={"image": encoded(PICTURE), "texts": ["a"]}).status_code == 404
        assert client.post("/v1/caption", json={"image": "https://example.com/a.png"}).status_code == 422
        for name in ("../../../etc/passwd", "/etc/passwd", "a\x00.png", "C:\\boot.ini"):
            answer = client.post("/v1/caption", files={"image": (name, PICTURE)})
            assert answer.status_code in (200, 400)
            answer = client.post("/v1/caption", files={"image": (name, b"x")})
            assert "etc" not in answer.text
        assert client.post("/v1/caption", json={"image": "/etc/passwd"}).status_code == 422
        assert client.post("/v1/caption", json={"image": "file:///etc/passwd"}).status_code == 422


def test_a_rate_is_each_keys_own(model: str) -> None:
    with running({"m": model}, KEYS, rate=8.0) as serving, serving.client() as client:

        def get(key: str) -> httpx.Response:
            return client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})

        assert [get(KEYS["phone"]).status_code for _ in range(4)] == [200, 200, 429, 429]
        assert int(get(KEYS["phone"]).headers["retry-after"]) >= 1
        assert get(KEYS["web"]).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_a_burst_is_served_or_told_to_come_again(model: str, door: threading.Event, blocked: dict[str, Any]) -> None:
    with running({"m": model}, parts=blocked, max_queue=10, max_batch=4) as serving, serving.client() as client:
        threading.Timer(1.0, door.set).start()

        def post(n: int) -> httpx.Response:
            return client.post("/v1/caption", json={"image": encoded(PICTURE)})

        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(post, range(40)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) == 10
        assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)
        assert len({a.text for a in answers if a.status_code == 200}) == 1
        assert client.post("/v1/captions:batch", json={"images": [encoded(PICTURE)] * 11}).status_code == 422
        assert post(0).status_code == 200
        serving.until(lambda: (serving.service.admission.images, serving.service.admission.body_bytes) == (0, 0))


def test_pictures_of_a_batch_take_a_place_each(model: str, door: threading.Event, blocked: dict[str, Any]) -> None:
    with running({"m": model}, parts=blocked, max_queue=3) as serving, serving.client() as client:
        waiting = asked(serving)
        serving.until(lambda: serving.service.admission.images == 1)
        answer = client.post("/v1/captions:batch", json={"images": [encoded(PICTURE)] * 3})
        assert answer.status_code == 429
        door.set()
        assert waiting.getresponse().status == 200
        assert client.post("/v1/captions:batch", json={"images": [encoded(PICTURE)] * 3}).status_code == 200


def test_an_answer_has_a_deadline(model: str, door: threading.Event, blocked: dict[str, Any]) -> None:
    with running({"m": model}, parts=blocked, timeout=0.5) as serving, serving.client() as client:
        answer = client.post("/v1/caption", json={"image": encoded(PICTURE)})
        assert answer.status_code == 504
        assert answer.headers["content-type"] == "application/problem+json"
        serving.until(lambda: serving.service.admission.images == 0)
        door.set()
        serving.until(lambda: client.post("/v1/caption", json={"image": encoded(PICTURE)}).status_code == 200)


def test_a_client_that_leaves_frees_its_place(model: str, door: threading.Event, blocked: dict[str, Any]) -> None:
    with running({"m": model}, parts=blocked, max_queue=2, max_batch=1) as serving, serving.client() as client:
        first = asked(serving)
        serving.until(lambda: 'captune_batch_pictures_count{model="m"} 1.0' in client.get("/metrics").text)
        second = asked(serving)
        serving.until(lambda: serving.service.admission.images == 2)
        assert client.post("/v1/caption", json={"image": encoded(PICTURE)}).status_code == 429
        second.close()
        serving.until(lambda: serving.service.admission.images == 1)
        third = asked(serving)
        serving.until(lambda: serving.service.admission.images == 2)
        door.set()
        assert [line.getresponse().status for line in (first, third)] == [200, 200]
        batches = client.get("/metrics").text
        assert 'captune_batch_pictures_count{model="m"} 2.0' in batches  # the second was never worked on


def test_half_a_body_and_half_a_head_do_not_stay(model: str) -> None:
    with running({"m": model}, timeout=0.5, max_queue=2) as serving:
        serving.app.state.connections.timeouts = Timeouts(headers=0.3, discard=0.1, check_interval=0.1)
        head = b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: 100\r\n\r\n"
        lines = [socket.create_connection(("127.0.0.1", serving.port), timeout=10) for _ in range(4)]
        lines[0].sendall(head + b'{"image": "')
        lines[1].sendall(head + b'{"image": "')
        lines[2].sendall(b"POST /v1/cap")
        serving.until(lambda: serving.service.admission.receiving == 2)
        assert serving.service.admission.images == 0
        lines[1].close()
        assert lines[0].recv(100).startswith(b"HTTP/1.1 408 ")
        assert lines[2].recv(100) == b""
        assert lines[3].recv(100) == b""
        serving.until(lambda: serving.service.admission.receiving == 0)
        for line in lines:
            line.close()


def test_a_stream_ends_with_its_client(model: str) -> None:
    with running({"m": model}) as serving, serving.client() as client:
        url = f"data:image/png;base64,{encoded(PICTURE)}"
        said = {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
            "stream": True,
            "min_new_tokens": 25,
            "max_new_tokens": 25,
        }
        for _ in range(3):
            with client.stream("POST", "/v1/chat/completions", json=said) as answer:
                assert answer.status_code == 200
                next(answer.iter_lines())
            serving.until(lambda: serving.service.admission.images == 0)
        assert all(one.users == 0 for one in serving.service.pool.models.values())
        assert client.post("/v1/caption", json={"image": encoded(PICTURE)}).status_code == 200


def test_pages_of_other_origins_only_where_allowed(model: str) -> None:
    with running({"m": model}, KEYS, cors=("https://example.com",)) as serving, serving.client() as client:
        asking = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/caption", headers=asking).headers["access-control-allow-origin"] == asking["Origin"]
        other = client.options("/v1/caption", headers={**asking, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        refused = client.get("/v1/models", headers={"Origin": "https://example.com"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://example.com"


def test_addresses_are_fetched_only_where_allowed_and_public(model: str) -> None:
    def post(client: httpx.Client, url: str) -> httpx.Response:
        return client.post("/v1/caption", json={"image": url})

    with running({"m": model}, allow_urls=True) as serving, serving.client() as client:
        for url in (f"{serving.url}/metrics", "http://169.254.169.254/latest/", "HTTP://[::1]:80/a.png"):
            assert post(client, url).status_code == 422
            assert "not a public one" in post(client, url).json()["detail"]
    fetched = {"fetch": lambda url, **limits: PICTURE}
    with running({"m": model}, parts=fetched, allow_urls=True) as serving, serving.client() as client:
        assert post(client, "https://photos.example/a.png").status_code == 200


def test_an_animation_costs_one_frame(model: str) -> None:
    frames = [Image.new("RGB", (300, 300), (n, 0, 0)) for n in range(200)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with running({"m": model}) as serving, serving.client() as client:
        assert client.post("/v1/caption", files={"image": file.getvalue()}).status_code == 200


def test_create_app_says_at_once_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="did not start"), running({"m": str(tmp_path / "nothing")}):
        pass
