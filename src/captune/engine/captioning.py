"""Pictures in, captions out: decode ahead in threads, caption in batches, keep the order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.data.images import open_image
from captune.data.pixels import to_pixels
from captune.engine.decoding import generate
from captune.models.backbone import Backbone, PixelSettings

Key = TypeVar("Key")
MAX_PIXELS = 100_000_000


def read_pixels(source: Any, settings: PixelSettings, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The model's pixels (3, size, size), float32, of a path, bytes or a PIL picture."""
    if isinstance(source, Image.Image):
        image = source if source.mode == "RGB" else source.convert("RGB")
    else:
        image = open_image(source, max_pixels=max_pixels)
    return to_pixels(image, settings.size, settings.mean, settings.std, settings.resample)


def stream_pixels(
    items: Iterable[tuple[Key, Any]], settings: PixelSettings, *, workers: int = 0, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Key, np.ndarray | CaptuneError]]:
    """Pixels of every (key, source) in order, decoded a little ahead; an unreadable one is its error."""

    def read(source: Any) -> np.ndarray | CaptuneError:
        try:
            return read_pixels(source, settings, max_pixels)
        except CaptuneError as error:
            return error

    workers = workers or cpu_count() or 1
    waiting: deque[tuple[Key, Future[np.ndarray | CaptuneError]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="captune-pixels") as pool:
        try:
            for key, source in items:
                waiting.append((key, pool.submit(read, source)))
                if len(waiting) > 4 * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def caption_pixels(
    backbone: Backbone, pixels: np.ndarray, options: GenerationOptions, dtype: torch.dtype = torch.float32
) -> list[list[Caption]]:
    """Captions of pixels (pictures, 3, size, size); runs in the model's device and `dtype`."""
    with torch.inference_mode():
        values = torch.from_numpy(pixels).to(backbone.device, dtype)
        return generate(backbone, backbone.encode(values), options)


def caption_stream(
    backbone: Backbone,
    items: Iterable[tuple[Key, Any]],
    options: GenerationOptions,
    *,
    batch_size: int = 8,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    """Captions of every (key, source), in order; an unreadable picture yields its error and stops nothing."""
    waiting: list[tuple[Key, np.ndarray | CaptuneError]] = []
    good = 0
    for key, pixels in stream_pixels(items, backbone.pixels, workers=workers, max_pixels=max_pixels):
        waiting.append((key, pixels))
        good += isinstance(pixels, np.ndarray)
        if good == batch_size or (good == 0 and len(waiting) >= batch_size):
            yield from _caption_batch(backbone, waiting, options, dtype)
            waiting, good = [], 0
    yield from _caption_batch(backbone, waiting, options, dtype)


def _caption_batch(
    backbone: Backbone,
    batch: list[tuple[Key, np.ndarray | CaptuneError]],
    options: GenerationOptions,
    dtype: torch.dtype,
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    arrays = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
    captions = iter(caption_pixels(backbone, np.stack(arrays), options, dtype) if arrays else [])
    for key, pixels in batch:
        yield key, next(captions) if isinstance(pixels, np.ndarray) else pixels
