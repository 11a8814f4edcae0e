"""Images with their caption in them, as files: copies, or the files themselves."""

import os
import shutil
from contextlib import suppress
from functools import reduce
from pathlib import Path

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import NotWritable, atomic_file
from captune.core.files.existing import ExistingCaptions
from captune.core.text import fit_name
from captune.images.metadata import UnsupportedImage, jpeg, png, webp
from captune.images.metadata.places import (
    FieldReader,
    Fields,
    FieldWriter,
    join_texts,
    normalize,
    packet_texts,
    scan_packets,
)
from captune.images.metadata.xmp import Mark
from captune.images.metadata.xmp import with_caption as packet_with_caption
from captune.images.signatures import image_type

_REWRITERS = {"JPEG": jpeg.rewrite, "PNG": png.rewrite, "WebP": webp.rewrite}


def with_caption(data: bytes, text: str, mark: Mark | None = None) -> bytes:
    """The bytes of an image file with `text` in its metadata; all other bytes that matter are as they were.

    JPEG, PNG and WebP. Raises `UnsupportedImage` for another kind, a file whose metadata are damaged, or one that has
    a description in a place that cannot be changed.
    """
    made = _rewrite(data, FieldWriter(text, mark))
    other: list[str] = []
    scan_packets(made, lambda packet: other.extend(packet_texts(packet)))
    if any(normalize(one) != normalize(text) for one in other):
        raise UnsupportedImage("it has another XMP packet in an unusual place")
    return made


def existing_texts(data: bytes, beside: bytes | None = None) -> list[str]:
    """What a person wrote as the description of an image, from all places and a packet beside it; each text once."""
    reading = FieldReader()
    with suppress(UnsupportedImage):  # what was found until then stands there
        _rewrite(data, reading)
    scan_packets(data, reading.extended)
    if beside is not None:
        reading.extended(beside)
    return reading.words()


def _rewrite(data: bytes, fields: Fields) -> bytes:
    name, _ = image_type(data) or ("", "")
    if name not in _REWRITERS:
        raise UnsupportedImage("it is neither JPEG, PNG nor WebP")
    return _REWRITERS[name](data, fields)


def write_copy(source: str | bytes, target: Path, caption: str, existing: ExistingCaptions) -> str | None:
    """Write a copy of an image, a path or its bytes, to `target` with `caption` in it.

    A person's words, in the image or in a copy that is there, are treated as `existing` says. A copy of a file keeps
    its permissions and times. An image that cannot hold the text is copied as it is, with the text in `NAME.xmp`
    beside it; then the reason is returned.
    """
    data = source if isinstance(source, bytes) else _read(source)
    if isinstance(source, str) and target.exists() and os.path.samefile(source, target):
        raise CaptuneError(f"The copy of {source} would replace it.", "Choose another --out, or change it: --in-place")
    path = source if isinstance(source, str) else None
    existing.fetch(target)
    existing.fetch(_beside(target))
    standing = existing_texts(_read(str(target)), _packet(target)) if target.is_file() else []
    before = existing_texts(data, None if path is None else _packet(Path(path)))
    words = [*standing, *(text for text in before if text not in standing)]
    joined = _joined(words, caption, existing, target)
    if joined is None:
        if not target.is_file() or standing == before:
            _write(target, data, like=path, times=True)
        return None
    return _put(data, target, *joined, like=path, times=True, packet=Path(path) if path else target)


def write_in_place(path: str, caption: str, existing: ExistingCaptions) -> str | None:
    """Put `caption` into an image file, whole or not at all; what cannot hold it gets `NAME.xmp` beside it.

    A person's words in it are treated as `existing` says. Permissions stay, the time of change is now; a file that
    has the caption already is not touched. Returns the reason of a file beside it. Raises `CaptuneError` for a file
    that may not be written.
    """
    data = _read(path)
    if not os.access(path, os.W_OK):
        raise NotWritable(f"No permission to write {path}.", "Change its permissions, or write copies: --out DIR")
    joined = _joined(existing_texts(data, _packet(Path(path))), caption, existing, Path(path))
    if joined is None:
        return None
    return _put(data, Path(path), *joined, like=path, times=False, packet=Path(path))


def _joined(words: list[str], caption: str, existing: ExistingCaptions, image: Path) -> tuple[str, Mark | None] | None:
    """The text that is to stand, with captune's mark; None: what stands in an image or beside it stays."""
    if existing.mode != "replace" and _is_foreign(_beside(image)):
        existing.preserved += 1
        return None
    if words == [caption]:
        return caption, None
    texts = existing.joined(words, [caption])
    if texts == [caption]:
        return caption, Mark(caption)
    if texts == words and existing.mode == "keep":
        return None
    mark = Mark(caption, reduce(join_texts, words)) if caption in texts and caption not in words else None
    return reduce(join_texts, texts), mark


def _put(
    data: bytes, target: Path, text: str, mark: Mark | None, *, like: str | None, times: bool, packet: Path
) -> str | None:
    """Write an image with a text in it, or beside it in a packet that has what the one beside `packet` has."""
    try:
        made, reason = with_caption(data, text, mark), None
    except UnsupportedImage as cannot:
        made, reason = data, str(cannot)
    if made != data or not target.exists() or times:
        _write(target, made, like=like, times=times)
    if reason is not None:
        _write_beside(target, _packet(target) or _packet(packet), text, mark)
    return reason


def _beside(image: Path) -> Path:
    """`photo.gif.xmp` for `photo.gif`."""
    return image.with_name(fit_name(image.name, ".xmp"))


def _packet(image: Path) -> bytes | None:
    """The packet beside an image, if there is one."""
    path = _beside(image)
    return _read(str(path)) if path.is_file() else None


def _is_foreign(path: Path) -> bool:
    """Whether a file has the name of a packet and is none that could be changed."""
    try:
        return path.is_file() and packet_with_caption(_read(str(path)), "") == b""
    except UnsupportedImage:
        return True


def _write_beside(image: Path, packet: bytes | None, text: str, mark: Mark | None) -> None:
    """Write the packet beside an image; one that is there keeps its other properties."""
    path = _beside(image)
    made = packet_with_caption(None if _is_foreign(path) else packet, text, mark)
    if made != packet or not path.is_file():
        _write(path, made, like=None, times=False)


def _write(path: Path, data: bytes, *, like: str | None, times: bool) -> None:
    with atomic_file(path, "wb") as file:
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
        reason = f"cannot be read again ({error.strerror})"
        raise ImageError(path, reason, "Was it moved meanwhile?", kind="missing") from None
