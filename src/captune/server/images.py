"""Images of requests: file bytes from uploads, base64 and URLs, decoded in processes that can be killed."""

from __future__ import annotations

import asyncio
import binascii
import io
import re
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError, ImageError
from captune.core.http import NETWORK, Network, WebError, get
from captune.core.options.serve import ServeOptions
from captune.images.decode_worker import command, described
from captune.images.preprocessing import Preprocessing
from captune.images.workers import ProcessPool, Reply, Send, cores
from captune.server.problems import Problem

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
_SPACE = str.maketrans("", "", " \t\r\n")
# Characters that are decoded at once: whole copies of a large picture would cost several times its size.
_PIECE = 1 << 18


def is_url(picture: str) -> bool:
    """Whether a picture is named by an http(s) address."""
    return picture[:8].lower().startswith(("http://", "https://"))


def image_bytes(picture: str | bytes) -> bytes:
    """The file in base64 or in a data URL; raises `Problem` (422) where it is neither."""
    if isinstance(picture, bytes):
        return picture
    start = 0
    if picture[:5].lower() == "data:":
        head = _DATA_URL.match(picture[:1000])
        if head is None or head[3] is None:
            raise Problem(422, "The data URL of the picture is not base64.", "data:image/jpeg;base64,…")
        start = head.end()
    try:
        return _decoded(picture, start)
    except ValueError:  # binascii's is one
        raise Problem(
            422, "The picture is not base64.", "Send base64, a data URL, or the file itself as multipart/form-data."
        ) from None


def _decoded(text: str, start: int) -> bytes:
    """Base64 from a place in a text on, white space aside; raises `ValueError`."""
    file, rest = io.BytesIO(), ""
    for at in range(start, len(text), _PIECE):
        piece = rest + text[at : at + _PIECE].translate(_SPACE)
        whole = len(piece) - len(piece) % 4
        if at + _PIECE < len(text) and "=" in piece[:whole]:
            # Only white space may follow the end.
            piece += text[at + _PIECE :].translate(_SPACE)
            file.write(binascii.a2b_base64(piece, strict_mode=True))
            return file.getvalue()
        file.write(binascii.a2b_base64(piece[:whole], strict_mode=True))
        rest = piece[whole:]
    file.write(binascii.a2b_base64(rest, strict_mode=True))
    return file.getvalue()


_MAX_URL_LENGTH = 2000


def fetch_image(url: str, *, most_bytes: int, seconds: float, network: Network = NETWORK) -> bytes:
    """The bytes at an address; blocks. Raises `Problem` (422) where it is not public or not fetched in time."""
    try:
        if any(ord(sign) <= 32 or ord(sign) == 127 for sign in url) or len(url) > _MAX_URL_LENGTH:
            raise WebError("it is not an address")
        return get(url, max_bytes=most_bytes, seconds=seconds, public=True, network=network)
    except WebError as error:
        raise Problem(422, f"The picture's address cannot be used: {error}.", "Send the picture itself.") from None


# Where every process has worked on an image for so long, another image would wait as well.
_STUCK_SECONDS = 2.0
_MAX_PROCESSES = 8
_SOON = {"Retry-After": "1"}
_TORCH_PREPROCESSING = "captune.inference.torch_model"


class ImageDecoder:
    """Processes that make pixels of the files that clients send; one that crashes or takes too long costs one image.

    They are those of `started`, where it is given, and `stuck` after `patience` seconds.
    """

    def __init__(
        self, options: ServeOptions, *, fast: bool, started: Sequence[str] = (), patience: float = _STUCK_SECONDS
    ) -> None:
        self._patience = patience
        imports = [_TORCH_PREPROCESSING] if fast and find_spec("torch") else []
        self._workers = ProcessPool(
            started
            or command(
                max_pixels=options.max_pixels, formats=[name.upper() for name in options.formats], imports=imports
            ),
            options.workers or min(cores(), _MAX_PROCESSES),
            timeout=options.decode_timeout,
        )

    async def start(self) -> None:
        """Start the first process, the others as they are needed; raises `CaptuneError` where it cannot be."""
        self._workers.__enter__()
        await asyncio.wrap_future(self._workers.start())

    async def pixels(self, contents: bytes, square: Preprocessing) -> np.ndarray:
        """The pixels (3, size, size), uint8, of a file; raises `ImageError`, and `Problem` (503) where none can start.

        An image that nobody waits for any more is not begun.
        """
        return (await self._decoded(contents, square))[0]

    async def pixels_and_size(self, contents: bytes, square: Preprocessing) -> tuple[np.ndarray, tuple[int, int]]:
        """As `pixels`, with the size (width, height) of the upright image."""
        pixels, said = await self._decoded(contents, square, size=True)
        width, height = said["size"]
        return pixels, (width, height)

    async def _decoded(self, contents: bytes, square: Preprocessing, **more: Any) -> tuple[np.ndarray, dict[str, Any]]:
        question = {"square": described(square), **more}
        try:
            answer = await asyncio.wrap_future(self._workers.submit(partial(_asked, question, contents)))
        except (CaptuneError, OSError) as error:
            raise Problem(503, "No image can be decoded now.", "Try again later.", headers=_SOON) from error
        said = answer.fields
        if "reason" in said:
            raise ImageError("the picture", said["reason"], said.get("hint", ""), kind=said["kind"])
        pixels = np.frombuffer(bytearray(answer.attachment), np.uint8)
        return pixels.reshape(3, square.size, square.size), said

    @property
    def stuck(self) -> bool:
        """Whether no process can take another image."""
        return self._workers.is_stuck(self._patience)

    def kill(self) -> None:
        """Kill the processes without waiting; no others are started."""
        self._workers.kill()

    def close(self) -> None:
        """Kill the processes, whatever they are doing."""
        self._workers.__exit__()


def _asked(question: dict[str, Any], contents: bytes, ask: Send) -> Reply:
    return ask(question, contents)
