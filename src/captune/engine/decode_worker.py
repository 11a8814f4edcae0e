"""A process of its own that turns pictures into a model's pixels: a decoder that crashes takes nothing else down.

Started by `captune.engine.decoding_ahead` as `python -m captune.engine.decode_worker SETTINGS`, JSON. It is
asked for the pixels of a `path`, or of the bytes that are attached, and attaches them to its answer.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from captune.data.answering import answer_questions
from captune.data.images import ImageError
from captune.data.pictures import read_pixels
from captune.data.pixels import Square
from captune.data.verify_worker import fingerprints


def square_of(settings: dict[str, Any]) -> Square:
    """What a picture becomes, as `DecodingAhead` says it."""
    module, _, name = settings["square"].partition(":")
    kind = getattr(import_module(module), name)
    square: Square = kind(settings["size"], settings["resample"], settings["shorter"], settings["fast"])
    return square


def answer(
    question: dict[str, Any], attachment: bytes, square: Square, settings: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """The pixels as bytes, with fingerprints of what the model sees if they are asked for; or kind and reason."""
    try:
        pixels = read_pixels(question.get("path", attachment), square, settings["max_pixels"])
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
    square = square_of(settings)  # torch, where it is needed: its memory is not the picture's
    answer_questions(
        lambda question, attachment: answer(question, attachment, square, settings), max_pixels=settings["max_pixels"]
    )


if __name__ == "__main__":
    main()
