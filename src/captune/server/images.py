"""Images of requests: file bytes from uploads, base64 and URLs, decoded in processes that can be killed."""

import asyncio
import binascii
import io
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from captune.core.errors import CaptuneError, ImageError
from captune.core.http import NETWORK, Network, WebError, get
from captune.core.options.serve import ServeOptions
from captune.images import decode_worker
from captune.images.preprocessing import Preprocessing
from captune.images.workers import ProcessPool, cores
from captune.server.problems import Problem

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
_SPACE = str.maketrans("", "", " \t\r\n")
# Characters that are decoded at once: whole copies of a large image would cost several times its size.
_PIECE = 1 << 18


def is_url(image: str) -> bool:
    """Whether an image is named by an http(s) address."""
    return image[:8].lower().startswith(("http://", "https://"))


def image_bytes(image: str | bytes) -> bytes:
    """The file in base64 or in a data URL; raises `Problem` (422) where it is neither."""
    if isinstance(image, bytes):
        return image
    start = 0
    if image[:5].lower() == "data:":
        head = _DATA_URL.match(image[:1000])
        if head is None or head[3] is None:
            raise Problem(422, "The data URL of the image is not base64.", "data:image/jpeg;base64,…")
        start = head.end()
    try:
        return _decoded(image, start)
    except ValueError:  # binascii's is one
        raise Problem(
            422, "The image is not base64.", "Send base64, a data URL, or the file itself as multipart/form-data."
        ) from None


def _decoded(text: str, start: int) -> bytes:
    """Decode base64 from an index of a text on, without white space; raises `ValueError`."""
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


def fetch_image(url: str, *, max_bytes: int, seconds: float, network: Network = NETWORK) -> bytes:
    """The bytes at a URL; blocks. Raises `Problem` (422) where it is not public or not fetched in time."""
    try:
        if any(ord(sign) <= 32 or ord(sign) == 127 for sign in url) or len(url) > _MAX_URL_LENGTH:
            raise WebError("it is not an address")
        return get(url, max_bytes=max_bytes, seconds=seconds, public=True, network=network)
    except WebError as error:
        raise Problem(422, f"The image's address cannot be used: {error}.", "Send the image itself.") from None


# Where every process has worked on an image for so long, another image would wait as well.
_STUCK_SECONDS = 2.0
_MAX_PROCESSES = 8
_SOON = {"Retry-After": "1"}
_TORCH_PREPROCESSING = "captune.inference.torch_model"


@dataclass(frozen=True)
class DecodedImage:
    """Pixels (3, size, size), uint8, the size (width, height) of the upright image, and fields of its file."""

    pixels: np.ndarray
    size: tuple[int, int] | None
    known: Mapping[str, str]


class ImageDecoder:
    """Processes that decode clients' images; one that crashes or takes too long costs one image.

    A client has at most all but one of them at a time. `command` starts one, if not the usual way; the decoder is
    `stuck` where each has worked on its image for `stuck_seconds`.
    """

    def __init__(
        self, options: ServeOptions, *, fast: bool, command: Sequence[str] = (), stuck_seconds: float = _STUCK_SECONDS
    ) -> None:
        self._stuck_seconds = stuck_seconds
        imports = [_TORCH_PREPROCESSING] if fast and find_spec("torch") else []
        formats = [name.upper() for name in options.formats]
        count = options.workers or min(cores() + 1, _MAX_PROCESSES)
        self._pool = ProcessPool(
            command or decode_worker.command(max_pixels=options.max_pixels, formats=formats, imports=imports),
            count,
            timeout=options.decode_timeout,
        )
        self._per_client = max(1, count - 1)
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def start(self) -> None:
        """Start the first process, the others as they are needed; raises `CaptuneError` where it cannot be."""
        self._pool.__enter__()
        await asyncio.wrap_future(self._pool.start())

    async def decode(
        self,
        data: bytes,
        preprocessing: Preprocessing,
        *,
        client: str = "",
        size: bool = False,
        fields: Collection[str] = (),
    ) -> DecodedImage:
        """The pixels of a file, the `size` of its upright image and `fields` that it says, where they are requested.

        Raises `ImageError`, and `Problem` (503) where no process can start. An image whose request has been cancelled
        is not begun.
        """
        request: dict[str, Any] = {"square": decode_worker.described(preprocessing), "size": size}
        if fields:
            request |= {"fields": sorted(fields), "name": ""}
        slots = self._slots.setdefault(client, asyncio.Semaphore(self._per_client))
        await slots.acquire()
        try:
            future = self._pool.submit(lambda send: send(request, data))
        except BaseException:
            slots.release()
            raise
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:  # by the process, which works on where the request has been cancelled
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(slots.release)

        future.add_done_callback(release)
        try:
            reply = await asyncio.wrap_future(future)
        except (CaptuneError, OSError) as error:
            raise Problem(503, "No image can be decoded now.", "Try again later.", headers=_SOON) from error
        found = reply.fields
        if "reason" in found:
            raise ImageError("the image", found["reason"], found.get("hint", ""), kind=found["kind"])
        pixels = np.frombuffer(bytearray(reply.attachment), np.uint8)
        upright = tuple(found["size"]) if size else None
        return DecodedImage(pixels.reshape(found["shape"]), upright, found.get("known", {}))

    @property
    def stuck(self) -> bool:
        """Whether no process can take another image."""
        return self._pool.is_stuck(self._stuck_seconds)

    def kill(self) -> None:
        """Kill the processes without waiting; no others are started."""
        self._pool.kill()

    def close(self) -> None:
        """Kill the processes, whatever they are doing."""
        self._pool.__exit__()
