"""From a picture to the numbers a model sees: one definition for every machine."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
# CLIP's statistics, which BLIP shares.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def to_pixels(
    image: Image.Image,
    size: int,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    resample: int = BICUBIC,
) -> np.ndarray:
    """The picture squashed to a square and normalised: float32, shape (3, size, size).

    `image` is 8-bit RGB. Bit for bit what transformers' `BlipImageProcessorPil` computes
    (resize in 8 bits, times 1/255, minus mean, through std), on machines with and without
    torchvision alike.
    """
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, not {image.mode}")
    if image.size != (size, size):
        image = image.resize((size, size), resample=Image.Resampling(resample))
    table = _table(tuple(mean), tuple(std))
    pixels = np.empty((3, size, size), np.float32)
    for channel, band in enumerate(image.split()):
        # There are only 256 values: looked up, not computed.
        np.take(table[channel], np.asarray(band), out=pixels[channel], mode="clip")
    return pixels


@functools.lru_cache(maxsize=16)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """The normalised value of each of the 256 levels in each channel, shape (3, 256)."""
    # In the number types and the order that transformers uses: one more rounding would show.
    rescaled = (np.arange(256).astype(np.float64) * (1 / 255)).astype(np.float32)
    columns = (rescaled[:, None] - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(columns.T)
