"""A process of its own that turns pictures into a model's pixels: a decoder that crashes takes nothing else down.

Started by `captune.engine.decoding_ahead` as `python -m captune.engine.decode_worker SETTINGS`, JSON. It is
asked for the pixels of a `path`, or of the bytes that are attached, and attaches them to its answer.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
from PIL import Image

from captune.data.answering import answer_questions
from captune.data.images import ImageError, open_image
from captune.data.pixels import to_pixels
from captune.data.verify_worker import fingerprints


def decode(source: str | bytes, settings: dict[str, Any]) -> np.ndarray:
    """Pixels (3, size, size), uint8; raises `ImageError`."""
    size, shorter, most = settings["size"], settings["shorter"], settings["max_pixels"]
    if settings["fast"]:
        from captune.engine.fast_pictures import fast_pixels

        found = fast_pixels(source, size, most, shorter)
        if found is not None:
            return found
    return to_pixels(open_image(source, max_pixels=most), size, settings["resample"], shorter)


def answer(question: dict[str, Any], attachment: bytes, settings: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The pixels as bytes, with fingerprints of what the model sees if they are asked for; or kind and reason."""
    try:
        pixels = decode(question.get("path", attachment), settings)
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason}, b""
    except MemoryError:
        return {"kind": "memory", "reason": "needs more memory than there is"}, b""
    seen = pixels.tobytes()
    if not settings["fingerprints"]:
        return {}, seen
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return {**fingerprints(picture), "digest": hashlib.blake2b(seen, digest_size=16).hexdigest()}, seen


def main() -> None:
    """Answer until stdin ends."""
    settings = json.loads(sys.argv[1])
    if settings["fast"]:
        import captune.engine.fast_pictures  # noqa: F401 - torch's memory is not the picture's
    answer_questions(
        lambda question, attachment: answer(question, attachment, settings), max_pixels=settings["max_pixels"]
    )


if __name__ == "__main__":
    main()
