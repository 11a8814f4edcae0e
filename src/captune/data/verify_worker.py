"""A process of its own that opens pictures: one that makes a decoder crash takes nothing else down.

Started by `captune.data.verify` as `python -m captune.data.verify_worker MAX_PIXELS`. It reads a
path as a JSON string a line from stdin and answers each with a JSON object a line on stdout.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from typing import Any

from PIL import AvifImagePlugin, Image

from captune.data.images import ImageError, open_image

# Enough for every picture within the limit of pixels, whatever its format.
_BYTES_PER_PIXEL = 20
_LEAST_MEMORY = 2 * 1024**3
THUMB = 8


def look(path: str, max_pixels: int) -> dict[str, Any]:
    """What verifying wants to know of a picture: size, hashes, digest of its bytes; or kind and reason."""
    try:
        image = open_image(path, max_pixels=max_pixels)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason, "hint": error.hint}
    except OSError as error:
        return {"kind": "damaged", "reason": error.strerror or str(error), "hint": ""}
    # One pass over the pixels; both fingerprints come from the small one.
    small = image.resize((72, 64), Image.Resampling.BOX)
    return {
        "size": image.size,
        "digest": digest,
        "hash": difference_hash(small),
        "thumb": small.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes().hex(),
    }


def difference_hash(image: Image.Image) -> str:
    """dHash, 64 bits as 16 hex digits: which of two neighbours in a 9 × 8 grey picture is brighter."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            at = 9 * row + column
            bits = bits << 1 | (grey[at] > grey[at + 1])
    return f"{bits:016x}"


def _limit_memory(max_pixels: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = max(_LEAST_MEMORY, _BYTES_PER_PIXEL * max_pixels)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    max_pixels = int(sys.argv[1])
    _limit_memory(max_pixels)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the processes are the parallelism
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        print(json.dumps(look(json.loads(line), max_pixels)), file=answers)


if __name__ == "__main__":
    main()
