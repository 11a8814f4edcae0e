"""What attackers of soak.py send: bodies that are large or wrong, images that take long or much to decode."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import random
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from serve_load import BOMB, GARBAGE, pictures, request

# Addresses of loopback that are nobody's proxy: as strangers have them.
STRANGERS = tuple(f"127.0.0.{number}" for number in range(11, 19))


@dataclass(frozen=True)
class Target:
    """The server, and a key that it knows."""

    port: int
    key: str

    @property
    def known(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


# Does one attack and returns a word for what came of it.
Attack = Callable[[Target, random.Random], Awaitable[str]]


class Line:
    """A connection from one of the strangers' addresses; with `narrow` little is received that is not read."""

    def __init__(self, port: int, chance: random.Random, *, narrow: bool = False) -> None:
        self._port, self._source, self._narrow = port, chance.choice(STRANGERS), narrow

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = socket.socket()
        try:
            if self._narrow:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.setblocking(False)
            line.bind((self._source, 0))
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", self._port))
            reader, self._writer = await asyncio.open_connection(sock=line, limit=1024 if self._narrow else 1 << 20)
        except BaseException:
            line.close()
            raise
        return reader, self._writer

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()


async def sent(target: Target, chance: random.Random, data: bytes) -> str:
    """The status that some bytes are answered with; `closed` where there is none."""
    async with Line(target.port, chance) as (reader, writer):
        writer.write(data)
        try:
            return (await reader.readline()).decode("latin-1").split(" ")[1]
        except IndexError:
            return "closed"


def once(*requests: Callable[[Target], bytes]) -> Attack:
    """An attack that sends one of these requests, in turn."""
    turn = iter(range(10**9))

    async def attack(target: Target, chance: random.Random) -> str:
        return await sent(target, chance, requests[next(turn) % len(requests)](target))

    return attack


def twice(attack: Attack) -> Attack:
    """The same attack two times at once."""

    async def both(target: Target, chance: random.Random) -> str:
        return " and ".join(await asyncio.gather(attack(target, chance), attack(target, chance)))

    return both


def keyed(body: bytes, path: str = "/v1/caption", content: str = "application/json", **more: str) -> Any:
    return lambda target: request(body, path, content, {**target.known, **more})


def image(contents: bytes, **options: Any) -> Any:
    return keyed(captioned(contents, **options))


def captioned(contents: bytes, **options: Any) -> bytes:
    return json.dumps({"image": base64.b64encode(contents).decode(), **options}).encode()


# -- bodies ------------------------------------------------------------------------------------------------------------


def form(parts: Sequence[bytes]) -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"


def bodies() -> Iterator[tuple[str, float, Attack]]:
    """Large bodies: of wrong values, of text, of many parts, deep, packed, cut off."""
    zeros = {size: b'{"images":[' + b"0," * (size // 2) + b"0]}" for size in (2_000_000, 18_800_000)}
    yield "wrong values", 6, once(*(keyed(body, "/v1/captions:batch") for body in zeros.values()))
    picture = base64.b64encode(pictures(1, 32)[0]).decode()
    chat = [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": text},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                    ],
                }
            ]
        }
        for text in ("word " * 3_800_000, "💥" * 4_000_000, "\n" * 9_000_000)
    ]
    yield "long prompts", 6, once(*(keyed(json.dumps(each).encode(), "/v1/chat/completions") for each in chat))
    field = b'Content-Disposition: form-data; name="%b"\r\n\r\n%b'
    forms = (
        form([field % (b"n%d" % number, b"1") for number in range(100_000)]),
        form([field % (b"prompt", b"a" * 15_000_000)]),
        form([b"X: " + b"y" * 100_000 + b"\r\n\r\n"]),
        form([field % (b"num_beams", b"1")] * 900),
        form([b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + b"\x89PNG" * 3_000_000])[:-9],
    )
    kind = "multipart/form-data; boundary=x"
    yield "forms", 12, once(*(keyed(each, "/v1/caption", kind) for each in forms))
    deep = (
        b'{"image":' + b"[" * 1_000_000,
        b'{"image":' + b'{"a":' * 500_000 + b"1" + b"}" * 500_001,
        b"{" + b",".join(b'"k%d":1' % number for number in range(200_000)) + b"}",
        b'{"image":"' + b"\\u0041" * 2_000_000 + b'"}',
        b'{"image":"' + b"\\" * 5_000_001 + b'"}',
        b'{"images":["' + b'","'.join([b"AAAA"] * 1001) + b'"]}',
    )
    yield "odd JSON", 20, once(*map(keyed, deep))
    packed = gzip.compress(bytes(10_000_000))
    yield (
        "packed or of wrong types",
        20,
        once(
            keyed(packed, **{"Content-Encoding": "gzip"}),
            keyed(b"<a/>", content="application/xml"),
            keyed(b"{}", content="multipart/form-data"),
            keyed(b"\xff\xfe", content="application/json; charset=utf-16"),
        ),
    )
    yield "garbage", 30, once(*(lambda target, whole=whole: with_key(whole, target) for whole in GARBAGE))


def with_key(whole: bytes, target: Target) -> bytes:
    """A request of `serve_load` with a key."""
    line, rest = whole.split(b"\r\n", 1)
    return line + f"\r\nAuthorization: Bearer {target.key}\r\n".encode() + rest


# -- images ------------------------------------------------------------------------------------------------------------


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG with its last scan again and again: a decoder goes over the whole image for each."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 200)).save(file, "JPEG", progressive=True, quality=30)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


def slow_jpeg() -> bytes:
    """As many pixels and scans as the server's defaults allow: seconds of decoding."""
    return scans(6300, 99)


def saved(kind: str, side: int, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind)
    return file.getvalue()


def fits() -> bytes:
    """A packed FITS that says it has 9,000 × 9,000 pixels, and has."""
    cards = ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 9000", "NAXIS2  = 9000", "END")
    return gzip.compress("".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(81_000_000))


def images() -> Iterator[tuple[str, float, Attack]]:
    """Files that take long, or much, to decode."""
    slow = once(image(slow_jpeg()))
    yield "slow JPEG", 4, slow
    yield "two slow JPEGs", 0.5, twice(slow)
    yield "JPEG of 14,000 scans", 12, once(image(scans(640, 14_000)))
    yield "bombs", 20, once(lambda target: with_key(BOMB, target), image(fits()), image(saved("TIFF", 8000, "1")))
    allowed = [saved("PNG", 6000, "L"), saved("WEBP", 4000), saved("GIF", 6000, "P"), saved("AVIF", 3000)]
    yield "large images", 6, once(*map(image, allowed))
    files = [pictures(1, 64)[0], *(saved(kind, 64) for kind in ("JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"))]
    cut = [file[: len(file) * share // 8] for file in files for share in (1, 4, 7)]
    flipped = [file[:40] + bytes(byte ^ 0x55 for byte in file[40:48]) + file[48:] for file in files]
    yield "cut and damaged images", 60, once(*map(image, [*cut, *flipped]))
    many = json.dumps({"images": [base64.b64encode(file).decode() for file in [*cut, *flipped][:16]]}).encode()
    yield "batches of damaged images", 6, once(keyed(many, "/v1/captions:batch"))


def stream(contents: bytes) -> bytes:
    url = f"data:image/png;base64,{base64.b64encode(contents).decode()}"
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    return json.dumps({"stream": True, "max_tokens": 512, "messages": [message]}).encode()
