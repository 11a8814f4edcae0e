"""Archives and tables on web servers: read as they come, or in ranges, each step within its time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captune.core.http import Answer, WebError, opened
from captune.data.bulk.remote import web_error

STEP_SECONDS = 60.0  # for each step, which a slow line of 140 kB/s can do as well
STEP_BYTES = 8 * 1024 * 1024
LARGEST_STREAM = 100 * 10**9  # bytes: a server could go on for ever
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@contextmanager
def opened_on_web(url: str, *, stream: bool, seconds: float = STEP_SECONDS) -> Iterator[Any]:
    """A file at an address to read; not a `stream`: to seek in as well, from a server that gives ranges.

    Raises `CaptuneError`, also from reads within the block.
    """
    try:
        if stream:
            with opened(url, seconds=seconds) as answer:
                answer.check(200)
                yield io.BufferedReader(_Stream(answer), STEP_BYTES)
        else:
            yield io.BufferedReader(_Ranges(url, seconds), STEP_BYTES)
    except WebError as error:
        raise web_error(url, error) from None


class _Stream(io.RawIOBase):
    """The body of an answer; a server has to give each step in time."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._step = self._came = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._step <= 0:
            self._answer.restart()
            self._step = STEP_BYTES
        block = self._answer.read(min(len(buffer), self._step, io.DEFAULT_BUFFER_SIZE * 8))
        buffer[: len(block)] = block
        self._step -= len(block)
        self._came += len(block)
        if self._came > LARGEST_STREAM:
            raise WebError(f"more than {LARGEST_STREAM:,} bytes", large=True)
        return len(block)


class _Ranges(io.RawIOBase):
    """A file of which parts are got as they are needed; each is what was asked for, of one and the same file."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = url, seconds
        self._at = 0
        self._tag = ""
        self._size = self._get(0, 1)[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at, STEP_BYTES)
        if count <= 0:
            return 0
        data, size = self._get(self._at, count)
        if size != self._size:
            raise WebError("the file changed while it was read")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _get(self, start: int, count: int) -> tuple[bytes, int]:
        """`count` bytes of the file, and how many it has."""
        headers = {"Range": f"bytes={start}-{start + count - 1}", **({"If-Range": self._tag} if self._tag else {})}
        with opened(self._url, seconds=self._seconds, headers=headers) as answer:
            if answer.status == 200 and not self._tag:
                raise WebError("the server gives whole files alone, no parts of them; download it first")
            answer.check(206)
            told = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if told is None or int(told[1]) != start or not start <= int(told[2]) < start + count:
                raise WebError("the server gave another part of the file than was asked for")
            tag = answer.headers.get("ETag", "")
            self._tag = self._tag or (tag if tag.startswith('"') else "")
            end = int(told[2]) + 1
            data = bytearray()
            while len(data) < end - start and (block := answer.read(end - start - len(data))):
                data += block
            if len(data) < end - start:
                raise WebError(f"the connection broke after {len(data):,} of {end - start} bytes")
            return bytes(data), int(told[3])
