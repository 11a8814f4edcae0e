"""Open every image once, in parallel processes, so that a bad image fails alone."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from captune.core.progress import SILENT, Progress
from captune.images.workers import TIMEOUT_SECONDS, ProcessPool, Send, cores

THUMB_BYTES = 192
WORKER = (sys.executable, "-m", "captune.images.verify_worker")
_IMAGES_PER_PROCESS = 16
# Far ahead, so that an image that takes a minute blocks no other process.
_AHEAD = 4096


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What opening an image found. `reason` is None for a good one; `kind` as in `ImageError`.

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
    worker: Sequence[str] = WORKER,
) -> Iterator[ImageCheck]:
    """Open every path in `workers` processes (0: one a core) started by the command `worker`; results in order.

    An image that crashes its decoder, runs out of memory or takes longer than `timeout` seconds is a bad image; the
    rest goes on in a new process.
    """
    count = min(workers or cores(), max(1, len(paths) // _IMAGES_PER_PROCESS))
    pending: deque[Future[ImageCheck]] = deque()
    with (
        ProcessPool([*worker, str(max_pixels)], count, timeout=timeout) as pool,
        progress.task("Opening pictures", len(paths)) as task,
    ):
        todo = iter(enumerate(paths))
        while True:
            while len(pending) < _AHEAD and (following := next(todo, None)) is not None:
                pending.append(pool.submit(partial(_check, *following)))
            if not pending:
                return
            check = pending.popleft().result()
            task.advance()
            yield check


def _check(index: int, path: str, send: Send) -> ImageCheck:
    fields = send({"path": path}, b"").fields
    if "reason" in fields:
        return ImageCheck(index, str(fields["reason"]), str(fields["kind"]))
    width, height = fields["size"]
    return ImageCheck(
        index,
        width=width,
        height=height,
        hash=int(fields["hash"], 16),
        thumb=bytes.fromhex(fields["thumb"]),
        digest=fields["digest"],
    )
