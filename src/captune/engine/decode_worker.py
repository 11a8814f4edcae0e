"""A process of its own that turns pictures into a model's pixels: a decoder that crashes takes nothing else down.

Started by `captune.data.workers` as `command` says: for a job (`captune.engine.decoding_ahead`), or for a server. It is
asked for the pixels of a `path`, or of the bytes that are attached, and attaches them to its answer; a question may
bring a `square` of its own, and ask for the `size` of the upright image.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from captune.core.errors import ImageError
from captune.data.answering import serve_requests
from captune.data.images import open_image
from captune.data.pictures import read_pixels
from captune.data.pixels import Preprocessing
from captune.data.verify_worker import fingerprints

WORKER = (sys.executable, "-m", "captune.engine.decode_worker")


def command(
    *,
    max_pixels: int,
    fingerprints: bool = False,
    square: Preprocessing | None = None,
    formats: Sequence[str] | None = None,
    imports: Sequence[str] = (),
) -> list[str]:
    """How such a process is started.

    `fingerprints` are of what the model sees, `formats` as in `open_image`. `imports` are modules that squares of
    questions need: their memory is not the picture's.
    """
    settings = {
        "square": square and described(square), "max_pixels": max_pixels, "fingerprints": fingerprints,
        "formats": formats, "imports": imports,
    }  # fmt: skip
    return [*WORKER, json.dumps(settings)]


def described(square: Preprocessing) -> dict[str, Any]:
    """What a picture becomes, for `preprocessing_of` in another process."""
    kind = type(square) if square.fast else Preprocessing  # only the quicker way may need torch
    return {
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "size": square.size, "resample": int(square.resample), "shorter": square.shorter, "fast": square.fast,
    }  # fmt: skip


def preprocessing_of(said: dict[str, Any]) -> Preprocessing:
    """The square that was `described`."""
    module, _, name = said["kind"].partition(":")
    kind = getattr(import_module(module), name)
    square: Preprocessing = kind(said["size"], said["resample"], said["shorter"], said["fast"])
    return square


def answer(
    question: dict[str, Any], attachment: bytes, square: Preprocessing | None, settings: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """The pixels as bytes, with fingerprints of what the model sees if they are asked for; or kind and reason."""
    source, found = question.get("path", attachment), {}
    try:
        square = square or preprocessing_of(question["square"])
        if question.get("size"):
            image = open_image(source, max_pixels=settings["max_pixels"], formats=settings["formats"])
            found["size"] = image.size
            source = source if square.fast else image
        pixels = read_pixels(source, square, settings["max_pixels"], settings["formats"])
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason, "hint": error.hint}, b""
    except MemoryError:
        return {"kind": "memory", "reason": "needs more memory than there is"}, b""
    seen = pixels.tobytes()
    if not settings["fingerprints"]:
        return found, seen
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return {**found, **fingerprints(picture), "digest": hashlib.blake2b(seen, digest_size=16).hexdigest()}, seen


def main() -> None:
    """Answer until stdin ends."""
    settings = json.loads(sys.argv[1])
    for module in settings["imports"]:
        import_module(module)
    square = preprocessing_of(settings["square"]) if settings["square"] else None
    serve_requests(
        lambda question, attachment: answer(question, attachment, square, settings), max_pixels=settings["max_pixels"]
    )


if __name__ == "__main__":
    main()
