"""Open every picture once, in parallel, so that one bad picture costs one picture."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from captune.core.progress import SILENT, Progress
from captune.data.workers import TIMEOUT_SECONDS, ProcessPool, Send, cores

THUMB_BYTES = 192
WORKER = (sys.executable, "-m", "captune.data.verify_worker")
_PICTURES_PER_PROCESS = 16
# Far ahead, so that a picture that takes a minute holds up no other process.
_AHEAD = 4096


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What opening a picture showed. `reason` is None for a good one; `kind` as in `ImageError`.

    `hash` is a 64-bit dHash, `thumb` an 8 × 8 RGB thumbnail (`THUMB_BYTES`), `digest` of the file's bytes.
    """

    index: int
    reason: str | None = None
    kind: str = ""
    width: int = 0
    height: int = 0
    hash: int = 0
    thumb: bytes = b""
    digest: str = ""


def verify(
    paths: Sequence[str],
    *,
    max_pixels: int,
    workers: int = 0,
    timeout: float = TIMEOUT_SECONDS,
    progress: Progress = SILENT,
) -> Iterator[ImageCheck]:
    """Open every path in `workers` processes (0: one a core); looks come in the order of the paths.

    A picture that kills its process (a crash in a decoder, memory) or takes longer than
    `timeout` seconds is a bad picture; the rest goes on in a new process.
    """
    count = min(workers or cores(), max(1, len(paths) // _PICTURES_PER_PROCESS))
    waiting: deque[Future[ImageCheck]] = deque()
    with (
        ProcessPool([*WORKER, str(max_pixels)], count, timeout=timeout) as processes,
        progress.task("Opening pictures", len(paths)) as task,
    ):
        todo = iter(enumerate(paths))
        while True:
            while len(waiting) < _AHEAD and (following := next(todo, None)) is not None:
                waiting.append(processes.submit(partial(_check, *following)))
            if not waiting:
                return
            found = waiting.popleft().result()
            task.advance()
            yield found


def _check(index: int, path: str, ask: Send) -> ImageCheck:
    said = ask({"path": path}, b"").said
    if "reason" in said:
        return ImageCheck(index, str(said["reason"]), str(said["kind"]))
    width, height = said["size"]
    return ImageCheck(
        index,
        width=width,
        height=height,
        hash=int(said["hash"], 16),
        thumb=bytes.fromhex(said["thumb"]),
        digest=said["digest"],
    )
