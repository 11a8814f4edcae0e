"""Images in, pixels out: read ahead in threads, in order; an unreadable image is its error.

At up to twice the size of the square, values differ from the exact way by one or two levels of
255 on 0.4 % of them; larger images are decoded at a fraction of their size, which also moves
levels at edges.
"""

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import open_regular
from captune.images.jpeg import has_too_many_scans
from captune.images.open import MAX_PIXELS, ORIENTATION, open_image
from captune.images.preprocessing import Preprocessing, to_pixels
from captune.images.signatures import HEAD_BYTES, image_type

HEAD = 65_536
# Models that take images in their own aspect refuse longer ones (Qwen-VL).
MAX_ASPECT = 200


def decode_fast(source: Any, least: int, max_pixels: int) -> np.ndarray | None:
    """Levels (height, width, 3), uint8, of the path or bytes of an upright, whole JPEG; None for anything else.

    Both sides keep at least `least` pixels where the image has them.
    """
    data = _jpeg(source)
    if data is None:
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB") or width * height > max_pixels or _turned(data):
            return None
        if has_too_many_scans(io.BytesIO(data)):
            return None
        return simplejpeg.decode_jpeg(data, min_height=least, min_width=least)
    except (ValueError, MemoryError):
        return None  # open_image says what is wrong, or finds that it is good enough


def check_fast_decoder() -> None:
    """Stop where what the quicker way needs is not installed."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        raise CaptuneError("--preprocessing fast needs simplejpeg.", "pip install 'captune[fast]'") from None


def _jpeg(source: Any) -> bytes | None:
    if isinstance(source, (str, os.PathLike)):
        try:
            with open_regular(source) as file:
                head = file.read(HEAD_BYTES)
                return head + file.read() if _is_jpeg(head) else None
        except (OSError, ValueError):
            return None
    return source if isinstance(source, bytes) and _is_jpeg(source) else None


def _is_jpeg(head: bytes) -> bool:
    return image_type(head) == ("JPEG", ".jpg")


def _turned(data: bytes) -> bool:
    """Whether EXIF asks for another orientation than the stored one."""
    if data.find(b"Exif\0\0", 0, HEAD) < 0:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError):
        return True


Key = TypeVar("Key")


class Features(Protocol):
    """What was made of images before, by the name of their file."""

    def __contains__(self, image: object) -> bool: ...

    def __getitem__(self, image: str) -> np.ndarray: ...


def read_pixels(
    source: Any, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS, formats: Sequence[str] | None = None
) -> np.ndarray:
    """The model's pixels (3, size, size), uint8, of a path, bytes, what fetches them, or a PIL image.

    `formats` as in `open_image`.
    """
    if callable(source):
        source = source()
    if preprocessing.fast and preprocessing.size:
        # A fraction that leaves twice the square keeps what the resize needs.
        levels = decode_fast(source, 2 * max(preprocessing.size, preprocessing.shorter), max_pixels)
        if levels is not None:
            return preprocessing.apply(levels)
    if isinstance(source, Image.Image):
        image = source if source.mode == "RGB" else source.convert("RGB")
    else:
        image = open_image(source, max_pixels=max_pixels, formats=formats)
    if not preprocessing.size and max(image.size) >= MAX_ASPECT * min(image.size):
        width, height = image.size
        name = str(source) if isinstance(source, (str, os.PathLike)) else "the image"
        raise ImageError(name, f"is {width} × {height}: too narrow for this model", kind="unsupported")
    if preprocessing.longest and max(image.size) > preprocessing.longest:
        image = image.copy()  # it may be the caller's
        image.thumbnail((preprocessing.longest, preprocessing.longest), Image.Resampling.LANCZOS)
    return to_pixels(image, preprocessing.size, preprocessing.resample, preprocessing.shorter)


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images, or features of them, as one array (images, …); an array of objects where their shapes differ."""
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    batch = np.empty(len(images), dtype=object)
    batch[:] = images
    return batch


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
