"""Random changes to training images that depend on seed, epoch and image alone."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterable

from PIL import Image, ImageEnhance

# Words that a mirror image would make wrong.
_SIDES = re.compile(r"\b(left|right)(most|hand(ed)?|wards?)?\b", re.IGNORECASE)
_ASPECT = 4 / 3


def augment(
    image: Image.Image,
    *,
    seed: int,
    epoch: int,
    key: str,
    crop: float = 0.0,
    flip: bool = False,
    color_jitter: float = 0.0,
    references: Iterable[str] = (),
) -> Image.Image:
    """A random crop, mirror image and colour change of an RGB image, equal in every process and order.

    `crop`: at least 1 - crop of the area is kept, its aspect changed by at most 4:3.
    `flip`: one example in two, never where a reference says left or right.
    `color_jitter`: brightness, contrast and saturation each change by up to this share.
    All three options are shares from 0 (off) to below 1; `key` is the image's id.
    """
    # Every number is drawn whatever is switched on, so that one option never moves another.
    draws = _draws(seed, epoch, key)
    if crop > 0:
        image = image.crop(_box(image.size, crop, draws[0:4]))
    if flip and draws[4] < 0.5 and not mentions_sides(references):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if color_jitter > 0:
        for enhance, draw in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), draws[5:8], strict=True
        ):
            image = enhance(image).enhance(1 + color_jitter * (2 * draw - 1))
    return image


def mentions_sides(references: Iterable[str]) -> bool:
    """Whether any sentence says left or right (leftmost, right-hand, …)."""
    return any(_SIDES.search(reference) for reference in references)


def _draws(seed: int, epoch: int, key: str) -> list[float]:
    digest = hashlib.blake2b(f"{seed}\n{epoch}\n{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    # Python promises that random() gives the same sequence in every version.
    generator = random.Random(int.from_bytes(digest, "big"))
    return [generator.random() for _ in range(8)]


def _box(size: tuple[int, int], crop: float, draws: list[float]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part that is kept."""
    width, height = size
    share = 1 - crop * draws[0]
    # Aspect relative to the image's own; bounded so that the part fits without losing area.
    bound = math.log(min(_ASPECT, 1 / share))
    aspect = math.exp((2 * draws[1] - 1) * bound)
    crop_width = min(width, math.ceil(width * math.sqrt(share * aspect)))
    crop_height = min(height, math.ceil(height * math.sqrt(share / aspect)))
    left = int(draws[2] * (width - crop_width + 1))
    top = int(draws[3] * (height - crop_height + 1))
    return left, top, left + crop_width, top + crop_height
