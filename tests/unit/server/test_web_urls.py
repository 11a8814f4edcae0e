"""No address in a request reaches a machine behind the server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from captune.core.http import NETWORK, REDIRECTS, Network, is_public
from captune.server import images
from captune.server.problems import Problem

PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::", "not an address", "",
]  # fmt: skip
PUBLIC = ["93.184.215.14", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png", "http://localhost/a.png", "http://[::1]/a.png", "http://169.254.169.254/latest/meta-data",
        "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://[::ffff:127.0.0.1]/",
        "http://user@8.8.8.8/", "http://8.8.8.8:99999/", "http:///a.png", "file:///etc/passwd", "ftp://8.8.8.8/a.png",
        "gopher://8.8.8.8/", "http://8.8.8.8/a b", "http://8.8.8.8/\r\nX: y", "http://" + "a" * 3000, "http://[::1",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url: str) -> None:
    network = Network(NETWORK.resolve, lambda *_: pytest.fail("it connected"))
    with pytest.raises(Problem) as error:
        images.fetch_image(url, max_bytes=1000, seconds=2, network=network)
    assert error.value.status == 422


Resolve = Callable[[str], list[str]]


def test_one_private_answer_among_public_ones_is_enough_to_refuse() -> None:
    for addresses in (["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], []):
        network = Network(lambda host, port, found=addresses: found, lambda *_: pytest.fail("it connected"))
        with pytest.raises(Problem, match=r"not a public one|not known"):
            images.fetch_image("http://mixed.example/", max_bytes=1000, seconds=2, network=network)


@contextmanager
def stand_in(resolve: Resolve, answer: Callable[[bytes], list[bytes]]) -> Iterator[tuple[Network, list[str]]]:
    """A network with one server, which all connections reach; yields the addresses that were connected to, too."""
    connected: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                asked = client.recv(65536)
                try:
                    for part in answer(asked):
                        client.sendall(part)
                        time.sleep(0.01)
                except OSError:
                    pass

    def connect(address: str, port: int, seconds: float) -> socket.socket:
        connected.append(address)
        return socket.create_connection(listener.getsockname(), seconds)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield Network(lambda host, port: resolve(host), connect), connected
    finally:
        listener.close()


def public(host: str) -> list[str]:
    return ["8.8.8.8"]


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_public_picture_is_fetched_from_the_address_that_was_checked() -> None:
    asked: list[str] = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return public(host)

    with stand_in(resolve, lambda request: [ok(b"image" if b"GET /a.png?x=1" in request else b"")]) as (network, to):
        url = "http://photos.example/a.png?x=1"
        assert images.fetch_image(url, max_bytes=1000, seconds=5, network=network) == b"image"
    assert to == ["8.8.8.8"]
    assert asked == ["photos.example"]  # once: a second answer could be another one


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/", "http://inside.example/", "file:///etc/passwd", "//10.0.0.1/", "ftp://8.8.8.8/", ""]
)
def test_redirects_are_checked(target: str) -> None:
    known = {"photos.example": "8.8.8.8", "inside.example": "192.168.0.1"}
    answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    server = stand_in(lambda host: [known.get(host, host)], lambda _: [answer])
    with server as (network, connected), pytest.raises(Problem):
        images.fetch_image("http://photos.example/a.png", max_bytes=1000, seconds=5, network=network)
    assert set(connected) == {"8.8.8.8"}
    assert len(connected) <= REDIRECTS + 1


def test_a_name_that_answers_otherwise_the_second_time_does_not_matter() -> None:
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\nContent-Length: 0\r\n\r\n"
    server = stand_in(lambda host: next(answers), lambda _: [redirect])
    with server as (network, connected), pytest.raises(Problem, match="not a public one"):
        images.fetch_image("http://rebinding.example/a.png", max_bytes=1000, seconds=5, network=network)
    assert connected == ["8.8.8.8"]


@pytest.mark.parametrize(
    "parts",
    [
        [ok(b"x" * 5000)],
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 500] * 10],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort"],
        [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"],
        [b"nonsense\r\n\r\n"],
        [b""],
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"],
    ],
    ids=["large", "large without length", "cut off", "404", "nonsense", "nothing", "many headers"],
)
def test_bad_answers_are_refused(parts: list[bytes]) -> None:
    with stand_in(public, lambda _: parts) as (network, _), pytest.raises(Problem):
        images.fetch_image("http://photos.example/", max_bytes=1000, seconds=5, network=network)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"HTTP/1.1 200"])
def test_a_slow_answer_is_cut(head: bytes) -> None:
    started = time.monotonic()
    with stand_in(public, lambda _: [head, *[b"x"] * 300]) as (network, _), pytest.raises(Problem):
        images.fetch_image("http://photos.example/", max_bytes=1000, seconds=0.2, network=network)
    assert time.monotonic() - started < 2
