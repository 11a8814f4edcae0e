"""Pictures in, pixels out: read ahead in threads, in order; an unreadable one is its error."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from captune.core.errors import CaptuneError
from captune.data.fast_pictures import decode_fast
from captune.data.images import MAX_PIXELS, open_image
from captune.data.pixels import Preprocessing, to_pixels

Key = TypeVar("Key")


class Features(Protocol):
    """What was made of pictures before, by the name of their file."""

    def __contains__(self, image: object) -> bool: ...

    def __getitem__(self, image: str) -> np.ndarray: ...


def read_pixels(
    source: Any, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS, formats: Sequence[str] | None = None
) -> np.ndarray:
    """The model's pixels (3, size, size), uint8, of a path, bytes, what fetches them, or a PIL picture.

    `formats` as in `open_image`.
    """
    if callable(source):
        source = source()
    if preprocessing.fast:
        # A fraction that leaves twice the square keeps what the resize needs.
        levels = decode_fast(source, 2 * max(preprocessing.size, preprocessing.shorter), max_pixels)
        if levels is not None:
            return preprocessing.apply(levels)
    if isinstance(source, Image.Image):
        image = source if source.mode == "RGB" else source.convert("RGB")
    else:
        image = open_image(source, max_pixels=max_pixels, formats=formats)
    return to_pixels(image, preprocessing.size, preprocessing.resample, preprocessing.shorter)


def stream_pixels(
    items: Iterable[tuple[Key, Any]],
    preprocessing: Preprocessing,
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
            return read_pixels(source, preprocessing, max_pixels)
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
