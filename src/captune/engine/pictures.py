"""Pictures in, pixels out: read ahead in threads, in order; an unreadable one is its error."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from captune.core.errors import CaptuneError
from captune.data.images import MAX_PIXELS, open_image
from captune.data.pixels import to_pixels
from captune.engine.fast_pictures import fast_pixels
from captune.models.pixels import PixelSettings

if TYPE_CHECKING:
    from captune.engine.features import Features

Key = TypeVar("Key")


def read_pixels(source: Any, settings: PixelSettings, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The model's pixels (3, size, size), uint8, of a path, bytes, what fetches them, or a PIL picture."""
    if callable(source):
        source = source()
    if settings.fast:
        found = fast_pixels(source, settings.size, max_pixels, settings.shorter)
        if found is not None:
            return found
    if isinstance(source, Image.Image):
        image = source if source.mode == "RGB" else source.convert("RGB")
    else:
        image = open_image(source, max_pixels=max_pixels)
    return to_pixels(image, settings.size, settings.resample, settings.shorter)


def stream_pixels(
    items: Iterable[tuple[Key, Any]],
    settings: PixelSettings,
    *,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    features: Features | None = None,
) -> Iterator[tuple[Key, np.ndarray | CaptuneError]]:
    """Pixels of every (key, source) in order, read a little ahead; an unreadable one is its error.

    A source that `features` has yields those.
    """

    def read(source: Any) -> np.ndarray | CaptuneError:
        if features is not None and source in features:
            return features[source]
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
