"""From an image to the numbers that a model gets, and the random changes of training images."""

import hashlib
import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
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


BICUBIC = Image.Resampling.BICUBIC
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """What makes an image a model's pixels: `size`, `resample` and `shorter` as in `to_pixels`.

    With a `size` of 0 an image stays as it is: the model's own processor prepares it. Only what is longer than
    `longest` (0: nothing) is shrunk to that, in its own aspect.

    With `fast`, JPEG files are decoded the quicker way.
    """

    size: int
    resample: int = BICUBIC
    shorter: int = 0
    fast: bool = False
    longest: int = 0

    def apply(self, levels: np.ndarray) -> np.ndarray:
        """The square (3, size, size) of quickly decoded levels (height, width, 3), uint8."""
        return to_pixels(Image.fromarray(levels), self.size, self.resample, self.shorter)


def to_pixels(image: Image.Image, size: int, resample: int = BICUBIC, shorter: int = 0) -> np.ndarray:
    """The image as a square: uint8, shape (3, size, size); with a `size` of 0 as it is, (3, height, width).

    Squashed; or with `shorter` its shorter side is resized to that and the middle cut out.
    `image` is 8-bit RGB. Normalised by the model's statistics it is bit for bit what
    transformers' processors for Pillow compute with Pillow 13, on machines with older
    Pillows, with and without torchvision alike.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, not {image.mode}")
    if not size:
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    for shape in resize_passes(image.size, resized_shape(image.size, size, shorter)):
        if image.size != shape:
            image = image.resize(shape, resample=Image.Resampling(resample))
    left, top = ((side - size) // 2 for side in image.size)
    return np.ascontiguousarray(np.asarray(image)[top : top + size, left : left + size].transpose(2, 0, 1))


def resized_shape(shape: tuple[int, int], size: int, shorter: int) -> tuple[int, int]:
    """What an image (width, height) is resized to before a square is cut out of it."""
    if not size:
        return shape
    if not shorter:
        return size, size
    longer = int(shorter * max(shape) / min(shape))
    return (shorter, longer) if shape[0] <= shape[1] else (longer, shorter)


def crop_box(shape: tuple[int, int], size: int, shorter: int = 0) -> Box:
    """The part (left, top, right, bottom) of an image (width, height) that is in its square, in its own pixels."""
    ends = []
    for side, whole in zip(shape, resized_shape(shape, size, shorter), strict=True):
        cut = size or whole
        before = (whole - cut) // 2
        ends.append((before * side / whole, (before + cut) * side / whole))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def resize_passes(shape: tuple[int, int], wanted: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes (width, height) of the two passes of a resize.

    Between them values are cut to 8 bits, so their order is part of the definition. Pillow
    before 13 begins with the rows; Pillow 13 with the columns of images that lose more than
    twice as much height as width.
    """
    columns_first = shape[1] - wanted[1] > max(0, 2 * (shape[0] - wanted[0]))
    return (shape[0], wanted[1]) if columns_first else (wanted[0], shape[1]), wanted
