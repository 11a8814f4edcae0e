"""A worker process that turns images into a model's pixels: a decoder that crashes takes nothing else down.

`captune.images.workers` starts it with `command`, for a job or for a server. A request has a `path` or attached bytes,
and may have a `square` of its own, ask for the `size` of the upright image, and for `fields` that its file says of the
image called `name`; the pixels are attached to the reply.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from captune.core.errors import ImageError
from captune.images.batches import read_pixels
from captune.images.metadata.fields import read_fields
from captune.images.open import open_image
from captune.images.preprocessing import Preprocessing
from captune.images.verify import fingerprints
from captune.images.workers import serve_requests

WORKER = (sys.executable, "-m", "captune.images.decode_worker")


def command(
    *,
    max_pixels: int,
    fingerprints: bool = False,
    square: Preprocessing | None = None,
    formats: Sequence[str] | None = None,
    imports: Sequence[str] = (),
) -> list[str]:
    """The command that starts such a process.

    `fingerprints` are of the model's pixels, `formats` as in `open_image`. `imports` are modules that the squares of
    requests need; imported early, they do not count as an image's memory.
    """
    settings = {
        "square": square and described(square), "max_pixels": max_pixels, "fingerprints": fingerprints,
        "formats": formats, "imports": imports,
    }  # fmt: skip
    return [*WORKER, json.dumps(settings)]


def described(square: Preprocessing) -> dict[str, Any]:
    """A square as JSON values, for `preprocessing_of` in another process."""
    kind = type(square) if square.fast else Preprocessing  # only the quicker way may need torch
    return {
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        **{each.name: getattr(square, each.name) for each in fields(kind)},
    }


def preprocessing_of(value: dict[str, Any]) -> Preprocessing:
    """The square that was `described`."""
    module, _, name = value["kind"].partition(":")
    square: Preprocessing = getattr(import_module(module), name)(**{n: v for n, v in value.items() if n != "kind"})
    return square


def answer(
    request: dict[str, Any], attachment: bytes, square: Preprocessing | None, settings: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """The pixels as bytes, with their fingerprints where the settings ask for them; or kind and reason."""
    source = request.get("path", attachment)
    fields: dict[str, Any] = {}
    try:
        square = square or preprocessing_of(request["square"])
        if request.get("fields"):
            fields["known"] = read_fields(source, request["name"], request["fields"])
        if request.get("size"):
            image = open_image(source, max_pixels=settings["max_pixels"], formats=settings["formats"])
            fields["size"] = image.size
            source = source if square.fast else image
        pixels = read_pixels(source, square, settings["max_pixels"], settings["formats"])
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason, "hint": error.hint}, b""
    except MemoryError:
        return {"kind": "memory", "reason": "needs more memory than there is"}, b""
    data, fields["shape"] = pixels.tobytes(), pixels.shape
    if not settings["fingerprints"]:
        return fields, data
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return {**fields, **fingerprints(image), "digest": hashlib.blake2b(data, digest_size=16).hexdigest()}, data


def main() -> None:
    """Reply until stdin ends."""
    settings = json.loads(sys.argv[1])
    for module in settings["imports"]:
        import_module(module)
    square = preprocessing_of(settings["square"]) if settings["square"] else None
    serve_requests(
        lambda request, attachment: answer(request, attachment, square, settings), max_pixels=settings["max_pixels"]
    )


if __name__ == "__main__":
    main()
