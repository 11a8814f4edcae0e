"""Images of strangers, decoded in processes that can be killed: those of a job (`captune.data.workers`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError, ImageError
from captune.core.serve_options import ServeOptions
from captune.data.pixels import Preprocessing
from captune.data.workers import ProcessPool, Reply, Send, cores
from captune.engine.decode_worker import command, described
from captune.web.problems import Problem

# Where every process has worked on an image for so long, another image would wait as well.
_STUCK_SECONDS = 2.0
_MOST_PROCESSES = 8
_SOON = {"Retry-After": "1"}
_TORCH_PREPROCESSING = "captune.engine.pictures"


class Decoding:
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
            options.workers or min(cores(), _MOST_PROCESSES),
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
        said = answer.said
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
