"""Open every image once, in parallel, in processes of their own: a bad image costs one image.

Started by `captune.images.verify` as `python -m captune.images.verify MAX_PIXELS`; a request has a `path`, or a file's
bytes attached.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from captune.core.errors import ImageError
from captune.core.files.fingerprints import bytes_content, file_content
from captune.core.progress import SILENT, Progress
from captune.images.open import open_image
from captune.images.workers import TIMEOUT_SECONDS, ProcessPool, Send, cores, serve_requests

THUMB = 8


def check_image(source: str | bytes, max_pixels: int) -> dict[str, Any]:
    """Size, hashes and digest of an image file, by its path or its bytes; or kind and reason."""
    try:
        image = open_image(source, max_pixels=max_pixels)
        digest = bytes_content(source) if isinstance(source, bytes) else file_content(source)
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason, "hint": error.hint}
    except OSError as error:
        return {"kind": "damaged", "reason": error.strerror or str(error), "hint": ""}
    return {"size": image.size, "digest": digest, **fingerprints(image)}


def fingerprints(image: Image.Image) -> dict[str, str]:
    """`hash` and `thumb` (an 8 × 8 RGB thumbnail) of an RGB image, in hex digits."""
    # One pass over the pixels; both come from the small one.
    small = image.resize((72, 64), Image.Resampling.BOX)
    return {"hash": difference_hash(small), "thumb": small.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes().hex()}


def difference_hash(image: Image.Image) -> str:
    """dHash, 64 bits as 16 hex digits: which of two neighbours in a 9 × 8 grey image is brighter."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            at = 9 * row + column
            bits = bits << 1 | (grey[at] > grey[at + 1])
    return f"{bits:016x}"


def main() -> None:
    """Reply until stdin ends."""
    max_pixels = int(sys.argv[1])
    serve_requests(lambda request, attached: (check_image(request.get("path", attached), max_pixels), b""), max_pixels)


if __name__ == "__main__":
    main()


THUMB_BYTES = 192
WORKER = (sys.executable, "-m", "captune.images.verify")
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


def verify_bytes(images: Iterable[bytes], *, max_pixels: int, workers: int) -> Iterator[tuple[bytes, ImageCheck]]:
    """As `verify`, of the bytes of image files, which come with what was found; a few are in memory at a time."""
    pending: deque[tuple[bytes, Future[ImageCheck]]] = deque()
    with ProcessPool([*WORKER, str(max_pixels)], workers) as pool:
        for index, data in enumerate(images):
            pending.append((data, pool.submit(partial(_check, index, data))))
            if len(pending) > 2 * workers:
                first, check = pending.popleft()
                yield first, check.result()
        for data, check in pending:
            yield data, check.result()


def _check(index: int, source: str | bytes, send: Send) -> ImageCheck:
    fields = (send({}, source) if isinstance(source, bytes) else send({"path": source}, b"")).fields
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
