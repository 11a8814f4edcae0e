"""Images of noise that are the same each time: Pillow's own noise cannot be seeded."""

from __future__ import annotations

import numpy as np
from PIL import Image


def noise(size: tuple[int, int], spread: float, seed: int = 0) -> Image.Image:
    """Grey noise about the middle grey; `size` is (width, height), `spread` the standard deviation in grey levels."""
    width, height = size
    levels = np.random.default_rng(seed).normal(128, spread, (height, width))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
