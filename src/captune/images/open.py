"""Opening an image: any common file becomes upright 8-bit RGB, or an error with its reason."""

import contextlib
import ctypes
import io
import logging
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from captune.core.errors import ImageError
from captune.images.jpeg import MOST_SCANS, has_missing_rows, has_too_many_scans
from captune.images.signatures import CONVERT, HEAD_BYTES, detect_unreadable, explain_unknown, is_heif

# The decoders that may see a file, in the order in which they are asked. Left out on purpose:
# EPS and WMF (they start other programs), and formats that nobody keeps photos in. TGA has no
# signature and comes last.
DECODERS = (
    "JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "ICO", "ICNS",
    "PSD", "QOI", "SGI", "PCX", "DDS", "FITS", "PCD", "TGA",
)  # fmt: skip
MAX_PIXELS = 100_000_000
GIANT = 20_000_000
# Threads decode side by side, but images of more pixels than GIANT one after another:
# each takes up to nine bytes a pixel on the way.
_ONE_GIANT = threading.Lock()

# Decoders that hold the image several times over while they work get a smaller share of the
# pixels that are allowed, so that none needs more than 2 GB at the default.
_SHARE = {"JPEG2000": 4, "WEBP": 2, "AVIF": 2}

# HEIF is a box for many codecs, and for films: what libheif says of those that it does not decode.
_UNSUPPORTED_HEIF = {
    "not been built in": "HEIF of a kind that is not decoded",
    "Unsupported codec": "HEIF of a kind that is not decoded",
    "invalid primary item": "HEIF without a still image, such as a sequence",
}

# What Pillow's decoders are known to raise on files that are not what they say (its open()
# converts some itself; load() and getexif() convert none).
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,  # with UnicodeDecodeError
    TypeError,
    LookupError,  # IndexError, KeyError
    ArithmeticError,  # ZeroDivisionError, OverflowError
    AttributeError,
    AssertionError,
    EOFError,
    BufferError,
    MemoryError,
    RuntimeError,  # with NotImplementedError, RecursionError
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)

# Pillow tells of harmless oddities through `warnings` and `logging`. Nobody who captions a
# thousand images can act on them, and they would tear the progress bar.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _quieten_libtiff() -> None:
    """libtiff writes its complaints to the terminal by itself; Pillow reports failures anyway."""
    # Where libtiff is linked so that it cannot be reached, its lines stay: no harm but noise.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        pillow = ctypes.CDLL(Image.core.__file__)
        pillow.TIFFSetErrorHandler(None)
        pillow.TIFFSetWarningHandler(None)


_quieten_libtiff()

ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    source: str | os.PathLike[str] | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    formats: Sequence[str] | None = None,
) -> Image.Image:
    """Decode an image, given as a path or as the bytes of a file, to an upright RGB image.

    EXIF orientation is applied; transparency lies on white; 16-bit and float samples are
    scaled to 8 bits; of an animation the first frame is taken; colour profiles are ignored.
    `name` stands for bytes in messages; with `formats` (of `DECODERS`, and HEIF) no others
    are opened. Raises `ImageError`; a truncated file is an error, never an image with grey
    parts.
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), name or "the picture", max_pixels, formats)
    path = os.fspath(source)
    try:
        # Looked at before it is opened: opening a pipe would wait forever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            what = "a folder" if os.path.isdir(path) else "not a regular file"
            raise ImageError(name or path, f"{what}, not an image", kind="folder")
        with open(path, "rb") as file:
            return _decode(file, name or path, max_pixels, formats)
    except FileNotFoundError:
        raise ImageError(name or path, "there is no such file", "Check the path.", kind="missing") from None
    except PermissionError:
        raise ImageError(
            name or path, "no permission to read it", "Change its permissions.", kind="permission"
        ) from None
    except (OSError, ValueError) as error:
        raise ImageError(name or path, f"cannot be opened ({_words(error)})", kind="missing") from None


def _decode(file: Any, name: str, max_pixels: int, formats: Sequence[str] | None) -> Image.Image:
    head = file.read(HEAD_BYTES)
    known = detect_unreadable(head)
    if known:
        raise ImageError(name, known[1], _sentence(known[2]), kind=known[0])
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels // 2 + 1  # the user asked for more than Pillow's own limit
    try:
        with open_undecoded(file, head, name, formats) as image:
            _check_size(image, name, max_pixels)
            _check_scans(image, file, name)
            with _ONE_GIANT if image.width * image.height > GIANT else nullcontext():
                image.load()
                _check_size(image, name, max_pixels)  # some containers tell the true size only now
                if image.format in ("JPEG", "MPO") and has_missing_rows(image, file):
                    raise ImageError(
                        name, "truncated (its last rows are missing)", "Download or copy it again.", kind="truncated"
                    )
                orientation = orientation_of(image)
                rgb = _to_rgb(image)
    except UnidentifiedImageError:
        kind, words, step = explain_unknown(head)
        raise ImageError(name, words, _sentence(step), kind=kind) from None
    except Image.DecompressionBombError:
        raise _giant(name, "far more pixels than", max_pixels) from None
    except MemoryError:
        raise _too_large_for_memory(name) from None
    except DECODER_ERRORS as error:
        raise _damaged(name, error) from None
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info = {}  # nothing that would make someone downstream turn it again
    return rgb


def open_undecoded(
    file: IO[bytes], head: bytes, name: str = "the picture", formats: Sequence[str] | None = None
) -> Image.Image:
    """An image file whose first bytes are `head`, not decoded yet, by Pillow or by what reads HEIC.

    Raises `ImageError` for HEIC where that is not installed, and what decoders raise.
    """
    if not is_heif(head):
        return Image.open(file, formats=DECODERS if formats is None else [one for one in DECODERS if one in formats])
    if formats is not None and "HEIF" not in formats:
        raise ImageError(name, "HEIC, which is not opened here", _sentence(CONVERT), kind="unsupported")
    if not is_heif_installed():
        step = "pip install 'captune[heic]'"
        reason = f"HEIC, which needs the package 'pillow-heif' ({step})"
        raise ImageError(name, reason, f"Install it with: {step}", kind="unsupported")
    return open_heif(file)


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(name, f"has no pixels ({width} × {height})")
    allowed = max_pixels // _SHARE.get(image.format or "", 1)
    if width * height > allowed:
        raise _giant(name, f"{width} × {height} pixels are more than", allowed)


def _check_scans(image: Image.Image, file: IO[bytes], name: str) -> None:
    if image.format not in ("JPEG", "MPO"):
        return
    at = file.tell()
    if has_too_many_scans(file):
        reason = f"a JPEG of more than {MOST_SCANS} scans, which would take minutes to decode"
        raise ImageError(name, reason, "Save it again as an ordinary JPEG.", kind="unsupported")
    file.seek(at)


def _giant(name: str, words: str, allowed: int) -> ImageError:
    return ImageError(
        name, f"{words} the {allowed:,} that are allowed", "Make it smaller, or raise --max-pixels.", kind="giant"
    )


def _too_large_for_memory(name: str) -> ImageError:
    return ImageError(name, "needs more memory than there is", "Make it smaller.", kind="memory")


def _damaged(name: str, error: BaseException) -> ImageError:
    reason = _words(error)
    for sign, words in _UNSUPPORTED_HEIF.items():
        if sign in reason:
            return ImageError(name, words, _sentence(CONVERT), kind="unsupported")
    if "Memory allocation error" in reason and "Security limit" not in reason:
        return _too_large_for_memory(name)
    if any(word in reason.lower() for word in ("truncat", "not enough", "premature", "unexpected end", "eof")):
        return ImageError(name, f"truncated ({reason})", "Download or copy it again.", kind="truncated")
    return ImageError(name, f"damaged ({reason})", "Download or copy it again.", kind="damaged")


def _words(error: BaseException) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(reason.split())[:120]


def _sentence(step: str) -> str:
    return step[0].upper() + step[1:] + "."


def orientation_of(image: Image.Image) -> int:
    """What EXIF says of an opened image, 1 (upright) to 8."""
    if image.format in ("TIFF", "HEIF"):
        return 1  # they are turned while loading: HEIF by its own boxes, beside which EXIF does not count
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return int(found)
    except DECODER_ERRORS:
        return 1  # broken metadata around good pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode == "RGBa" or image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Grey samples of more than 8 bits, scaled to 0–255."""
    low, high = _range(image)
    grey = Image.new("L", image.size)
    transparent = image.info.get("transparency")
    for top, samples in _strips(image):
        with np.errstate(all="ignore"):  # floats that are no numbers become black
            strip = samples.astype(np.float64)
            eight = np.clip((strip - low) * (255.0 / (high - low)), 0, 255)
            eight = np.nan_to_num(np.rint(eight)).astype(np.uint8)
        if isinstance(transparent, int):
            eight[strip == transparent] = 255
        grey.paste(Image.fromarray(eight), (0, top))
    return grey.convert("RGB")


def _range(image: Image.Image) -> tuple[float, float]:
    """The sample values that are black and white."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
        if image.mode.startswith("I;16"):
            return 0.0, float(2 ** min(bits, 16) - 1)
    elif image.mode != "F":
        return 0.0, 65535.0  # PNG, PGM: Pillow scales their samples to 16 bits
    bottom, top = _extremes(image)
    if image.mode == "F" and bottom >= 0 and top <= 1:
        return 0.0, 1.0
    if bottom >= 0 and top <= 255:
        return 0.0, 255.0
    if image.mode == "I" and bottom >= 0 and top <= 65535:
        return 0.0, 65535.0
    return bottom, max(top, bottom + 1.0)


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The samples of an image in strips, each with its first row: as floats a giant would take gigabytes."""
    width, height = image.size
    rows = max(1, 4_000_000 // width)
    for top in range(0, height, rows):
        yield top, np.asarray(image.crop((0, top, width, min(top + rows, height))))


def _extremes(image: Image.Image) -> tuple[float, float]:
    found = []
    for _, strip in _strips(image):
        strip = strip[np.isfinite(strip)] if image.mode == "F" else strip
        if strip.size:
            found.append((float(strip.min()), float(strip.max())))
    return (min(low for low, _ in found), max(high for _, high in found)) if found else (0.0, 1.0)


def is_heif_installed() -> bool:
    return find_spec("pillow_heif") is not None


def open_heif(file: IO[bytes]) -> Image.Image:
    """The primary image of a file, not decoded yet; it comes out upright, its boxes `irot` and `imir` applied."""
    from pillow_heif import HeifImageFile, options

    # None of these is looked at, and the images of a job are decoded side by side already.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    options.DECODE_THREADS = 1
    return HeifImageFile(file)


TURNS = {
    1: "upright",
    2: "mirrored",
    3: "upside down, turned by 180°",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its side, turned 90° clockwise",
    7: "on its side and mirrored",
    8: "on its side, turned 90° anticlockwise",
}


@dataclass(frozen=True)
class StoredImage:
    """Format and mode by Pillow's names, size in pixels as stored, EXIF orientation (1: upright)."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def turned(self) -> str:
        """How the stored image lies, and how it is made upright."""
        return TURNS.get(self.orientation, "upright")


def stored_image(source: Any) -> StoredImage:
    """Of a path, the bytes of a file, or a PIL image; the file is one that opens."""
    if isinstance(source, Image.Image):
        return StoredImage(source.format or "PIL", source.mode, *source.size, 1)
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        image = open_undecoded(file, file.read(HEAD_BYTES))
        size = image.size
        return StoredImage(image.format or "", image.mode, *size, orientation_of(image))
