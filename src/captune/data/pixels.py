"""From a picture to the numbers a model sees: one definition for every machine."""

from __future__ import annotations

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC


def to_pixels(image: Image.Image, size: int, resample: int = BICUBIC) -> np.ndarray:
    """The picture squashed to a square: uint8, shape (3, size, size).

    `image` is 8-bit RGB. Normalised by the model's statistics it is bit for bit what
    transformers' `BlipImageProcessorPil` computes with Pillow 13, on machines with older
    Pillows, with and without torchvision alike.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, not {image.mode}")
    for shape in passes(image.width, image.height, size):
        if image.size != shape:
            image = image.resize(shape, resample=Image.Resampling(resample))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def passes(width: int, height: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes (width, height) of the two passes of a resize to a square.

    Between them values are cut to 8 bits, so their order is part of the definition. Pillow
    before 13 begins with the rows; Pillow 13 with the columns of pictures that lose more than
    twice as much height as width.
    """
    columns_first = height - size > max(0, 2 * (width - size))
    return (width, size) if columns_first else (size, height), (size, size)
