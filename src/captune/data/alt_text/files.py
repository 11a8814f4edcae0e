"""Pictures with their caption in them, as files: copies, or the files themselves."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import atomic_write
from captune.core.names import fitted
from captune.data.alt_text import jpeg, packet, png, webp
from captune.data.alt_text.errors import CannotHold


def described(data: bytes, text: str) -> bytes:
    """The bytes of a picture file with `text` in its metadata; all other bytes that matter are as they were.

    JPEG, PNG and WebP. Raises `CannotHold` for another kind, or a file whose metadata are damaged.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg.described(data, text)
    if data.startswith(png.SIGNATURE):
        return png.described(data, text)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp.described(data, text)
    raise CannotHold("it is neither JPEG, PNG nor WebP")


def write_copy(source: str | bytes, target: Path, text: str) -> str | None:
    """Write a copy of a picture, a path or its bytes, to `target` with `text` in it.

    A copy of a file keeps its permissions and times. A picture that cannot hold the text is copied as
    it is, with the text in `NAME.xmp` beside it; then the reason is returned.
    """
    data = source if isinstance(source, bytes) else _read(source)
    if isinstance(source, str) and target.exists() and os.path.samefile(source, target):
        raise CaptuneError(f"The copy of {source} would replace it.", "Choose another --out, or change it: --in-place")
    try:
        made, reason = described(data, text), None
    except CannotHold as cannot:
        made, reason = data, str(cannot)
    _write(target, made, like=source if isinstance(source, str) else None, times=True)
    if reason is not None:
        _write_beside(target, text)
    return reason


def write_in_place(path: str, text: str) -> str | None:
    """Put `text` into a picture file, whole or not at all; what cannot hold it gets `NAME.xmp` beside it.

    Permissions stay, the time of change is now; a file that says it already is not touched.
    Returns the reason of a file beside it. Raises `CaptuneError` for a file that may not be written.
    """
    data = _read(path)
    if not os.access(path, os.W_OK):
        raise CaptuneError(f"No permission to write {path}.", "Change its permissions, or write copies: --out DIR")
    try:
        made = described(data, text)
    except CannotHold as cannot:
        _write_beside(Path(path), text)
        return str(cannot)
    if made != data:
        _write(Path(path), made, like=path, times=False)
    return None


def _write_beside(picture: Path, text: str) -> None:
    """`photo.gif.xmp` for `photo.gif`; one that is there keeps its other properties."""
    path = picture.with_name(fitted(picture.name, ".xmp"))
    try:
        made = packet.described(path.read_bytes() if path.is_file() else None, text)
    except CannotHold as cannot:
        raise CaptuneError(f"{path} cannot take the caption: {cannot}.", "Mend it or move it away.") from None
    _write(path, made, like=None, times=False)


def _write(path: Path, data: bytes, *, like: str | None, times: bool) -> None:
    with atomic_write(path, "wb") as file:
        file.write(data)
        if like is not None:
            file.flush()
            if not times:
                _give(file.name, os.stat(like))
            shutil.copystat(like, file.name)  # permissions, times, extended attributes
            if not times:
                os.utime(file.name)


def _give(path: str, found: os.stat_result) -> None:
    """Make a file its former owner's, where that is allowed; elsewhere it is who writes it, as after any copy."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(path, found.st_uid, found.st_gid)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CaptuneError(f"Cannot read {path} again: {error.strerror}.", "Was it moved meanwhile?") from None
