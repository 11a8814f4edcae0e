"""A worker process that opens images: a decoder that crashes takes nothing else down.

Started by `captune.images.verify` as `python -m captune.images.verify_worker MAX_PIXELS`; a request has a `path`.
"""

from __future__ import annotations

import sys
from typing import Any

from PIL import Image

from captune.core.errors import ImageError
from captune.core.files.fingerprints import file_content
from captune.images.open import open_image
from captune.images.workers import serve_requests

THUMB = 8


def check_image(path: str, max_pixels: int) -> dict[str, Any]:
    """Size, hashes and digest of an image file; or kind and reason."""
    try:
        image = open_image(path, max_pixels=max_pixels)
        digest = file_content(path)
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason, "hint": error.hint}
    except OSError as error:
        return {"kind": "damaged", "reason": error.strerror or str(error), "hint": ""}
    return {"size": image.size, "digest": digest, **fingerprints(image)}


def fingerprints(image: Image.Image) -> dict[str, str]:
    """`hash` and `thumb` (an 8 × 8 RGB thumbnail) of an RGB image, in hex digits."""
    # One pass over the pixels; both come from the small one.
    small = image.resize((72, 64), Image.Resampling.BOX)
    return {
        "hash": difference_hash(small),
        "thumb": small.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes().hex(),
    }


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
    serve_requests(lambda request, _: (check_image(request["path"], max_pixels), b""), max_pixels)


if __name__ == "__main__":
    main()
