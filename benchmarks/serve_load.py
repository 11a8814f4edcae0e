"""Clients for bench_serve.py: well-behaved ones, and ones that leave, send half a body, bombs or garbage."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from PIL import Image


def pictures(count: int, side: int) -> list[bytes]:
    """PNG files of noise, each another one."""
    found = []
    for seed in range(count):
        noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG")
        found.append(file.getvalue())
    return found


def request(
    body: bytes,
    path: str = "/v1/caption",
    content: str = "application/json",
    more: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A whole request, with `more` headers."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in more.items())
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def asking(picture: bytes, options: Mapping[str, object]) -> bytes:
    return request(json.dumps({"image": base64.b64encode(picture).decode(), **options}).encode())


@dataclass
class Seen:
    """What clients saw: statuses, seconds of the answers with 200, and answers that were wrong."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Line:
    """One connection that is kept open, from an address of this machine where one is given."""

    def __init__(self, port: int, address: str | None = None) -> None:
        self.port, self.address = port, address
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, data: bytes) -> None:
        if self.writer is None or self.writer.is_closing():
            local = (self.address, 0) if self.address else None
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        assert self.reader is not None
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join([chunk async for chunk in self._chunks(self.reader)])
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return int(head[0].split()[1]), headers, body

    async def exchange(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """An answer; a connection that was closed while nothing was asked is opened once more, as clients do."""
        again = self.writer is not None
        try:
            await self.send(data)
            return await self.answer()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            if not again or getattr(error, "partial", b""):
                raise
        await self.send(data)
        return await self.answer()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    async def _chunks(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while size := int(await reader.readline(), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readline()


async def load(
    port: int, clients: int, seconds: float, asked: Sequence[bytes], right: Sequence[Sequence[str]] | None, rough: bool
) -> Seen:
    """Closed-loop clients; with `rough` two of five misbehave. `right` are the captions of each request's picture."""
    seen, end = Seen(), time.monotonic() + seconds
    kinds = ("plain", "plain", "plain", "leaves", "half", "bomb", "garbage") if rough else ("plain",)
    started = [_client(port, kinds[n % len(kinds)], end, asked, right, seen, random.Random(n)) for n in range(clients)]
    await asyncio.gather(*started)
    return seen


async def _client(
    port: int,
    kind: str,
    end: float,
    asked: Sequence[bytes],
    right: Sequence[Sequence[str]] | None,
    seen: Seen,
    chance: random.Random,
) -> None:
    line = Line(port)
    await asyncio.sleep(chance.random() * 0.2)
    while time.monotonic() < end:
        which = chance.randrange(len(asked))
        begun = time.monotonic()
        try:
            if kind in ("leaves", "half"):
                whole = asked[which]
                await line.send(whole if kind == "leaves" else whole[: len(whole) // 2])
                await asyncio.sleep(chance.random() * 0.05)
                line.close()
                seen.statuses[kind] += 1
                await asyncio.sleep(0.1)
                continue
            await line.send({"plain": asked[which], "bomb": BOMB, "garbage": GARBAGE[which % len(GARBAGE)]}[kind])
            status, headers, body = await line.answer()
        except (OSError, asyncio.IncompleteReadError) as error:
            line.close()
            seen.statuses[f"{kind}: {type(error).__name__}"] += 1
            continue
        seen.statuses[f"{status}" if kind == "plain" else f"{kind}: {status}"] += 1
        if status == 200 and kind == "plain":
            seen.seconds.append(time.monotonic() - begun)
            said = json.loads(body)
            if right is not None and [caption["text"] for caption in said["captions"]] != list(right[which]):
                seen.wrong += 1
        elif status == 429:
            await asyncio.sleep(float(headers.get("retry-after", 1)) * (0.5 + chance.random()))
        else:
            await asyncio.sleep(0.05)
    line.close()


def _bomb() -> bytes:
    """100 million pixels in a file of some kilobytes."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


BOMB = asking(_bomb(), {})
GARBAGE = (
    request(b"{"),
    request(b"\x00\xff" * 500),
    request(b'{"image": "AAAA"}'),
    request(b'{"image": 5, "beams": "x"}'),
    asking(b"\x89PNG\r\n\x1a\n" + bytes(2000), {}),
)
