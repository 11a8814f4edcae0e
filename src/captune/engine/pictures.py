"""Pictures in, a model's pixels out, with torch's 8-bit resize where they are read the quicker way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.functional import interpolate

from captune.core.errors import CaptuneError
from captune.data import pictures
from captune.data.images import MAX_PIXELS
from captune.data.pictures import Features
from captune.data.pixels import Preprocessing, resize_passes, resized_shape
from captune.models.pixels import PixelSettings

Key = TypeVar("Key")


class TorchPreprocessing(Preprocessing):
    """A square whose quick resize takes a quarter of Pillow's time."""

    def apply(self, levels: np.ndarray) -> np.ndarray:
        shape = levels.shape[1], levels.shape[0]
        picture = torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0)
        first, (across, down) = resize_passes(shape, resized_shape(shape, self.size, self.shorter))
        if first[1] == down:  # columns first; torch itself begins with the rows
            picture = interpolate(picture, (down, first[0]), mode="bicubic", antialias=True)
        picture = interpolate(picture, (down, across), mode="bicubic", antialias=True)
        left, top = (across - self.size) // 2, (down - self.size) // 2
        return picture[0, :, top : top + self.size, left : left + self.size].contiguous().numpy()


def preprocessing_of(settings: PixelSettings) -> TorchPreprocessing:
    """What of a model's settings is not arithmetic of its first layer."""
    return TorchPreprocessing(settings.size, settings.resample, settings.shorter, settings.fast)


def read_pixels(source: Any, settings: PixelSettings, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The model's pixels (3, size, size), uint8, of a path, bytes, what fetches them, or a PIL picture."""
    return pictures.read_pixels(source, preprocessing_of(settings), max_pixels)


def stream_pixels(
    items: Iterable[tuple[Key, Any]],
    settings: PixelSettings,
    *,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    features: Features | None = None,
) -> Iterator[tuple[Key, np.ndarray | CaptuneError]]:
    """As `captune.data.pictures.stream_pixels`."""
    preprocessing = preprocessing_of(settings)
    return pictures.stream_pixels(items, preprocessing, workers=workers, max_pixels=max_pixels, features=features)
