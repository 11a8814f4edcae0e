"""The one client of the web: whatever a server does, an exchange ends in time and takes what it was allowed."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks import Answer, RawServer, endless, raw_server, said
from captune.core import http
from captune.core.errors import CaptuneError
from captune.core.stores import files
from captune.core.stores.files import opened_on_web
from captune.datasets.downloads.http import fetch

OK = b"HTTP/1.1 200 OK\r\n"
BLANK, END = b"\r\n", b"\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked" + END
MOST, SECONDS = 100_000, 0.3
SLOW = 0.02

ATTACKS: dict[str, tuple[Answer, str]] = {
    "two lengths in one": (said(OK + b"Content-Length: 5, 6" + END, b"image"), "no valid length"),
    "two lengths": (said(OK + b"Content-Length: 5\r\nContent-Length: 6" + END, b"image"), "no valid length"),
    "length of words": (said(OK + b"Content-Length: 0x5" + END, b"image"), "no valid length"),
    "negative length": (said(OK + b"Content-Length: -5" + END, b"image"), "no valid length"),
    "length of 19 digits": (said(OK + b"Content-Length: 9999999999999999999" + END), "no valid length"),
    "too long, and says so": (said(OK + b"Content-Length: 999999999" + END), "more than 100,000 bytes"),
    "endless": (endless(OK + BLANK, b"x" * 65536), "more than 100,000 bytes"),
    "endless chunks": (endless(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"), "more than 100,000 bytes"),
    "endless chunk of -1": (endless(CHUNKED + b"-1\r\n", b"x" * 65536), "not valid HTTP"),
    "endless chunk of -ffff": (endless(CHUNKED + b"-ffff\r\n", b"x" * 65536), "not valid HTTP"),
    "endless size of a chunk": (endless(CHUNKED, b"1;" + b"x" * 65536), "not valid HTTP"),
    "endless trailer": (endless(CHUNKED + b"0\r\n", b"X: y\r\n" * 5000), "not valid HTTP"),
    "bad chunk": (said(CHUNKED + b"zz\r\nimage\r\n"), "not valid HTTP|broke"),
    "chunk cut off": (said(CHUNKED + b"ff\r\nimage"), "the connection broke"),
    "unknown coding": (said(OK + b"Transfer-Encoding: gzip, chunked" + END, b"0\r\n\r\n"), "unknown transfer"),
    "compressed": (said(OK + b"Content-Encoding: gzip\r\nContent-Length: 5" + END, b"image"), "compressed"),
    "early end": (said(OK + b"Content-Length: 50" + END, b"image"), "broke after 5 of 50 bytes"),
    "no answer": (said(5.0), "in time"),
    "a byte now and then": (endless(OK + b"Content-Length: 5000" + END, b"x", SLOW), "in time"),
    "a byte of a head now and then": (endless(OK + b"X: ", b"x", SLOW), "in time"),
    "a byte of a chunk now and then": (endless(CHUNKED, b"1\r\nx\r\n", SLOW), "in time"),
    "a line of a head now and then": (endless(OK, b"X: y\r\n", SLOW), "in time"),
    "endless 100": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "not valid HTTP"),
    "a head of 10 MB": (endless(OK, b"X: " + b"y" * 60_000 + b"\r\n"), "not valid HTTP"),
    "a line of 10 MB": (endless(OK + b"X: ", b"y" * 65536), "not valid HTTP"),
    "nonsense": (said(b"nonsense\r\n\r\n"), "not valid HTTP"),
    "HTTP/0.9": (said(b"\x89PNG image without a head"), "not valid HTTP"),
    "a status of letters": (said(b"HTTP/1.1 abc OK" + END), "not valid HTTP"),
    "nothing": (said(b""), "hung up without an answer"),
    "204": (said(b"HTTP/1.1 204 No Content" + END), "answered 204"),
    "206": (said(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5" + END, b"image"), "answered 206"),
    "304": (said(b"HTTP/1.1 304 Not Modified" + END), "answered 304"),
    "416": (said(b"HTTP/1.1 416 Range\r\nContent-Length: 0" + END), "answered 416"),
    "999": (said(b"HTTP/1.1 999 \x1b[31mred\r\nContent-Length: 0" + END), "answered 999$"),
    "redirect to itself": (said(b"HTTP/1.1 302 F\r\nLocation: ?\r\nContent-Length: 0" + END), "redirects too often"),
    "redirect to nothing": (said(b"HTTP/1.1 302 F\r\nContent-Length: 0" + END), "redirects too often"),
    "redirect to a file": (said(b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd" + END), "only http and https"),
    "redirect to ftp": (said(b"HTTP/1.1 302 F\r\nLocation: ftp://127.0.0.1/" + END), "only http and https"),
    "redirect to data": (said(b"HTTP/1.1 302 F\r\nLocation: data:,x" + END), "only http and https"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with raw_server() as running:
        running.answers = {f"/{number}": answer for number, (answer, _) in enumerate(ATTACKS.values())}
        yield running


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_answer_holds_or_fills_its_reader(server: RawServer, attack: str) -> None:
    started = time.monotonic()
    with pytest.raises(http.WebError, match=ATTACKS[attack][1]):
        http.get(f"{server.url}/{[*ATTACKS].index(attack)}", max_bytes=MOST, seconds=SECONDS)
    assert time.monotonic() - started < 10 * SECONDS


GOOD = {
    "with its length": said(OK + b"Content-Length: 5" + END, b"image"),
    "one length twice": said(OK + b"Content-Length: 5, 5" + END, b"image and more", 5.0),
    "until the end": said(OK + BLANK, b"im", b"age"),
    "in chunks": said(CHUNKED + b"2\r\nim\r\n3;x=y\r\nage\r\n0\r\nX: y\r\n\r\n"),
    "after 100": said(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + BLANK + b"image"),
    "as it is": said(OK + b"Content-Encoding: identity" + END + b"image"),
    "elsewhere": said(b"HTTP/1.1 308 Moved\r\nLocation: /in%20chunks?a b" + END),
}


def test_answers_that_are_unusual_and_right(server: RawServer) -> None:
    server.answers |= {f"/{name.replace(' ', '%20')}": answer for name, answer in GOOD.items()}
    for name in GOOD:
        assert http.get(f"{server.url}/{name}", max_bytes=MOST, seconds=3) == b"image", name
    assert http.get(f"{server.url}/until the end", max_bytes=5, seconds=3) == b"image"


def test_time_for_which_the_reader_waits_does_not_count(server: RawServer) -> None:
    server.answers["/long"] = said(OK + b"Content-Length: 200000" + END, b"x" * 200_000)
    waited: list[int] = []

    def wait(count: int) -> None:
        waited.append(count)
        time.sleep(0.1)

    assert len(http.get(f"{server.url}/long", max_bytes=10**6, seconds=0.25, grown=wait)) == 200_000
    assert waited[-1] == 200_000


def test_a_public_host_does_not_redirect_to_one_behind_it(server: RawServer) -> None:
    known = {"photos.example": ["8.8.8.8"], "inside.example": ["10.0.0.1"]}

    def connect(address: str, port: int, seconds: float) -> socket.socket:
        return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), seconds)

    network = http.Network(lambda host, port: known[host], connect)
    server.answers["/inside"] = said(b"HTTP/1.1 302 F\r\nLocation: http://inside.example/as%20it%20is" + END)
    server.answers["/as%20it%20is"] = GOOD["as it is"]
    with pytest.raises(http.WebError, match="not a public one"):
        http.get("http://photos.example/inside", max_bytes=MOST, seconds=3, network=network)
    assert http.get("http://inside.example/inside", max_bytes=MOST, seconds=3, network=network) == b"image"


def test_one_that_speaks_no_tls_and_one_that_is_silent(server: RawServer) -> None:
    server.answers["/silent"] = said(5.0)
    address = server.url.replace("http:", "https:")
    started = time.monotonic()
    with pytest.raises(http.WebError, match=r"encryption|not reached|in time"):
        http.get(f"{address}/0", max_bytes=MOST, seconds=SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(http.WebError, match="in time"):
        http.get(f"https://127.0.0.1:{silent.getsockname()[1]}/", max_bytes=MOST, seconds=SECONDS)
    assert time.monotonic() - started < 10 * SECONDS


def test_an_image_of_a_job_that_is_not_had_is_an_error_with_its_reason(server: RawServer) -> None:
    for number, (_, words) in enumerate(ATTACKS.values()):
        if "lengths" in [*ATTACKS][number] or "chunk of" in [*ATTACKS][number]:
            with pytest.raises(CaptuneError, match=words):
                files.fetch(f"{server.url}/{number}")


def ranged(content: bytes, **wrong: bytes) -> Answer:
    """A file in ranges; `wrong` replaces the line of the range."""

    def answer(head: str) -> Iterator[bytes | float]:
        start, end = (int(each) for each in head.lower().partition("range: bytes=")[2].split("\r\n")[0].split("-"))
        end = min(end, len(content) - 1)
        line = wrong.get("line") or b"bytes %d-%d/%d" % (start, end, len(content))
        yield b"HTTP/1.1 206 Partial Content\r\nContent-Range: " + line + END
        yield content[start : end + 1]

    return answer


def test_files_in_ranges_are_what_was_asked_for(server: RawServer) -> None:
    content = bytes(range(256)) * 20
    server.answers |= {
        "/file": ranged(content),
        "/other": ranged(content, line=b"bytes 7-9/5120"),
        "/none": ranged(content, line=b"bytes */5120"),
        "/short": ranged(content, line=b"bytes 0-0/9999999"),
    }
    with opened_on_web(f"{server.url}/file", stream=False) as file:
        file.seek(-8, io.SEEK_END)
        assert file.read() == content[-8:]
        file.seek(100)
        assert file.read(50) == content[100:150]
    for name, words in (("other", "another part"), ("none", "another part"), ("short", "another part|broke")):
        with pytest.raises(CaptuneError, match=words), opened_on_web(f"{server.url}/{name}", stream=False) as file:
            file.read(10)
    server.answers["/drip"] = endless(OK + BLANK, b"x", SLOW)
    with (
        pytest.raises(CaptuneError, match="in time"),
        opened_on_web(f"{server.url}/drip", stream=True, seconds=0.2) as f,
    ):
        f.read(1000)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(b"HTTP/1.1 416 Range\r\nContent-Range: bytes */3\r\nContent-Length: 0" + END), "shorter file|416"),
        (
            said(b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10" + END, b"x" * 10),
            "another part|answered 206",
        ),
        (said(b"HTTP/1.1 206 P\r\nContent-Length: 10" + END, b"x" * 10), "another part|answered 206"),
        (endless(OK + BLANK, b"x" * 65536), "more than 1,000,000 bytes"),
        (endless(OK + b"Content-Length: 1000000" + END, b"x", SLOW), "in time"),
        (said(OK + b"Content-Length: 1000000" + END, b"x"), "broke after 1 of"),
    ],
    ids=["416", "206 of another part", "206 of no part", "endless", "slow", "a byte at a time"],
)
def test_downloads_end(server: RawServer, tmp_path: Path, answer: Answer, words: str) -> None:
    server.answers["/data"] = answer
    (tmp_path / "data.part").write_bytes(b"12345")
    before = len(server.requests)
    with pytest.raises(CaptuneError, match=words):
        fetch(f"{server.url}/data", tmp_path / "data", size=1_000_000, attempts=2, pause=0, timeout=0.2)
    assert len(server.requests) - before <= 4
    assert not (tmp_path / "data").exists()
