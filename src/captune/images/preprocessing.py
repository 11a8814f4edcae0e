"""From an image to the numbers a model sees: one definition for every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """What makes an image a model's pixels: `size`, `resample` and `shorter` as in `to_pixels`.

    With `fast`, JPEG files are decoded the quicker way.
    """

    size: int
    resample: int = BICUBIC
    shorter: int = 0
    fast: bool = False

    def apply(self, levels: np.ndarray) -> np.ndarray:
        """The square (3, size, size) of quickly decoded levels (height, width, 3), uint8."""
        return to_pixels(Image.fromarray(levels), self.size, self.resample, self.shorter)


def to_pixels(image: Image.Image, size: int, resample: int = BICUBIC, shorter: int = 0) -> np.ndarray:
    """The image as a square: uint8, shape (3, size, size).

    Squashed; or with `shorter` its shorter side is resized to that and the middle cut out.
    `image` is 8-bit RGB. Normalised by the model's statistics it is bit for bit what
    transformers' processors for Pillow compute with Pillow 13, on machines with older
    Pillows, with and without torchvision alike.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, not {image.mode}")
    for shape in resize_passes(image.size, resized_shape(image.size, size, shorter)):
        if image.size != shape:
            image = image.resize(shape, resample=Image.Resampling(resample))
    left, top = ((side - size) // 2 for side in image.size)
    return np.ascontiguousarray(np.asarray(image)[top : top + size, left : left + size].transpose(2, 0, 1))


def resized_shape(shape: tuple[int, int], size: int, shorter: int) -> tuple[int, int]:
    """What an image (width, height) is resized to before a square is cut out of it."""
    if not shorter:
        return size, size
    longer = int(shorter * max(shape) / min(shape))
    return (shorter, longer) if shape[0] <= shape[1] else (longer, shorter)


def crop_box(shape: tuple[int, int], size: int, shorter: int = 0) -> Box:
    """The part (left, top, right, bottom) of an image (width, height) that is in its square, in its own pixels."""
    ends = []
    for side, whole in zip(shape, resized_shape(shape, size, shorter), strict=True):
        before = (whole - size) // 2
        ends.append((before * side / whole, (before + size) * side / whole))
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
