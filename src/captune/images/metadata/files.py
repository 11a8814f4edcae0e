"""Images with their caption in them, as files: copies, or the files themselves."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Protocol, TypeVar

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import NotWritable, atomic_file
from captune.core.files.existing import ExistingCaptions
from captune.core.text import fit_name
from captune.images.metadata import UnsupportedImage, jpeg, png, webp
from captune.images.metadata.keywords import KeywordReader
from captune.images.metadata.places import FieldReader, Fields, FieldWriter, join_texts, scan_packets
from captune.images.metadata.xmp import Mark
from captune.images.metadata.xmp import with_caption as packet_with_caption
from captune.images.signatures import image_type

_Reader = TypeVar("_Reader", FieldReader, KeywordReader)
_REWRITERS = {"JPEG": jpeg.rewrite, "PNG": png.rewrite, "WebP": webp.rewrite}


class Writer(Fields, Protocol):
    """What writes into every place."""

    def check(self, data: bytes) -> None:
        """Raise `UnsupportedImage` where a file that was written says something else in an unusual place."""


class Edit(Protocol):
    """What is to be put into an image, and how a person's words in it are treated."""

    @property
    def existing(self) -> ExistingCaptions: ...

    def reader(self) -> Any:
        """What collects a person's words."""

    def writer(self, words: list[str], read: Any) -> Writer | None:
        """What writes beside a person's words, where so much was read; None: what stands is to stay."""


@dataclass(frozen=True)
class CaptionEdit:
    """A caption as the description of an image; captune's mark has what is `noted` of it (None: it has no mark).

    A mark of the same caption stays as it is: what was noted when it was written, and so the file.
    """

    caption: str
    existing: ExistingCaptions
    noted: Mapping[str, str] | None = field(default_factory=dict)

    def reader(self) -> FieldReader:
        return FieldReader()

    def writer(self, words: list[str], read: FieldReader) -> FieldWriter | None:
        caption = self.caption
        if words == [caption]:
            return FieldWriter(caption, None)
        texts = self.existing.joined(words, [caption])
        if texts == [caption]:
            return FieldWriter(caption, self._mark(read))
        if texts == words and self.existing.mode == "keep":
            return None
        new = caption in texts and caption not in words
        return FieldWriter(reduce(join_texts, texts), self._mark(read, reduce(join_texts, words)) if new else None)

    def _mark(self, read: FieldReader, words: str = "") -> Mark | None:
        if self.noted is None:
            return None
        same = (mark for mark in read.marks if (mark.caption, mark.words) == (self.caption, words))
        return next(same, Mark(self.caption, words, self.noted))


def with_caption(data: bytes, text: str, mark: Mark | None = None) -> bytes:
    """The bytes of an image file with `text` in its metadata, as `with_fields`."""
    return with_fields(data, FieldWriter(text, mark))


def with_fields(data: bytes, writer: Writer) -> bytes:
    """The bytes of an image file with what is written in its metadata; all other bytes that matter are as they were.

    JPEG, PNG and WebP. Raises `UnsupportedImage` for another kind, a file whose metadata are damaged, or one that
    says something else in a place that cannot be changed.
    """
    made = _rewrite(data, writer)
    writer.check(made)
    return made


def existing_texts(data: bytes, beside: bytes | None = None) -> list[str]:
    """What a person wrote as the description of an image, from all places and a packet beside it; each text once."""
    return _read_into(FieldReader(), data, beside).words()


def existing_marks(data: bytes, beside: bytes | None = None) -> list[Mark]:
    """captune's marks in an image, of captions that still stand there; each caption once."""
    reader = _read_into(FieldReader(), data, beside)
    return list({mark.caption: mark for mark in reader.marks if mark.caption in reader.texts}.values())


def existing_keywords(data: bytes, beside: bytes | None = None) -> KeywordReader:
    """The keywords of an image, from all places and a packet beside it, and which of them captune wrote."""
    return _read_into(KeywordReader(), data, beside)


def _read_into(reader: _Reader, data: bytes, beside: bytes | None = None) -> _Reader:
    with suppress(UnsupportedImage):  # what was found until then stands there
        _rewrite(data, reader)
    scan_packets(data, reader.extended)
    if beside is not None:
        reader.extended(beside)
    return reader


def _rewrite(data: bytes, fields: Fields) -> bytes:
    name, _ = image_type(data) or ("", "")
    if name not in _REWRITERS:
        raise UnsupportedImage("it is neither JPEG, PNG nor WebP")
    return _REWRITERS[name](data, fields)


def write_copy(source: str | bytes, target: Path, edit: Edit) -> str | None:
    """Write a copy of an image, a path or its bytes, to `target` with an edit of its metadata.

    A person's words, in the image or in a copy that is there, are treated as `existing` says. A copy that is not older
    than its file keeps what else was written into it. A copy of a file has its permissions and times. An image that
    cannot hold the text is copied as it is, with the text in `NAME.xmp` beside it; then the reason is returned.
    """
    data = source if isinstance(source, bytes) else _read(source)
    if isinstance(source, str) and target.exists() and os.path.samefile(source, target):
        raise CaptuneError(f"The copy of {source} would replace it.", "Choose another --out, or change it: --in-place")
    path = source if isinstance(source, str) else None
    edit.existing.fetch(target)
    edit.existing.fetch(packet_path(target))
    copy = _read(str(target)) if target.is_file() else None
    standing = [] if copy is None else _read_into(edit.reader(), copy, _packet(target)).words()
    before = _read_into(edit.reader(), data, None if path is None else _packet(Path(path))).words()
    if copy is not None and path is not None and os.stat(target).st_mtime_ns >= os.stat(path).st_mtime_ns:
        data = copy
    writer = _writer(edit, [*standing, *(text for text in before if text not in standing)], data, target)
    if writer is None:
        if not target.is_file() or standing == before:
            _write(target, data, like=path, times=True)
        return None
    return _put(data, target, writer, like=path, times=True, packet=Path(path) if path else target)


def write_in_place(path: str, *edits: Edit) -> str | None:
    """Edit the metadata of an image file, whole or not at all; what cannot hold it gets `NAME.xmp` beside it.

    A person's words in it are treated as `existing` says. Permissions stay, the time of change is now; a file that
    says this already is not touched. Returns the reason of a file beside it. Raises `CaptuneError` for a file
    that may not be written.
    """
    data = _read(path)
    if not os.access(path, os.W_OK):
        raise NotWritable(f"No permission to write {path}.", "Change its permissions, or write copies: --out DIR")
    edited = _edited(path, data, edits)
    if edited.image != data:
        _write(Path(path), edited.image, like=path, times=False)
    if edited.packet is not None and edited.packet != _packet(Path(path)):
        _write(packet_path(Path(path)), edited.packet, like=None, times=False)
    return edited.reason


def is_written(path: str, *edits: Edit) -> bool:
    """Whether an image file, or what lies beside it, says already what edits would write."""
    data = _read(path)
    edited = _edited(path, data, edits)
    return edited.image == data and edited.packet in (None, _packet(Path(path)))


@dataclass(frozen=True)
class _Edited:
    """What an image file and the packet beside it (None: as it is) are to be; why not all stands in the image."""

    image: bytes
    packet: bytes | None
    reason: str | None


def _edited(path: str, data: bytes, edits: Sequence[Edit]) -> _Edited:
    beside = packet_path(Path(path))
    before = packet = _packet(Path(path))
    reason = None
    for edit in edits:
        if edit.existing.mode != "replace" and is_foreign(beside):
            edit.existing.preserved += 1
            continue
        read = _read_into(edit.reader(), data, packet)
        writer = edit.writer(read.words(), read)
        if writer is None:
            continue
        try:
            data = with_fields(data, writer)
        except UnsupportedImage as cannot:
            reason = str(cannot)
            packet = writer.packet(None if packet is before and is_foreign(beside) else packet)
    return _Edited(data, packet if packet is not before else None, reason)


def _writer(edit: Edit, words: list[str], data: bytes, image: Path) -> Writer | None:
    """What writes; None: what stands in an image or beside it stays."""
    if edit.existing.mode != "replace" and is_foreign(packet_path(image)):
        edit.existing.preserved += 1
        return None
    return edit.writer(words, _read_into(edit.reader(), data, _packet(image)))


def _put(data: bytes, target: Path, writer: Writer, *, like: str | None, times: bool, packet: Path) -> str | None:
    """Write an image with an edit in it, or beside it in a packet that has what the one beside `packet` has."""
    try:
        made, reason = with_fields(data, writer), None
    except UnsupportedImage as cannot:
        made, reason = data, str(cannot)
    if made != data or not target.exists() or times:
        _write(target, made, like=like, times=times)
    if reason is not None:
        _write_beside(target, _packet(target) or _packet(packet), writer)
    return reason


def packet_path(image: Path) -> Path:
    """`photo.gif.xmp` for `photo.gif`."""
    return image.with_name(fit_name(image.name, ".xmp"))


def _packet(image: Path) -> bytes | None:
    """The packet beside an image, if there is one."""
    path = packet_path(image)
    return _read(str(path)) if path.is_file() else None


def is_foreign(path: Path) -> bool:
    """Whether a file has the name of a packet and is none that could be changed."""
    try:
        return path.is_file() and packet_with_caption(_read(str(path)), "") == b""
    except UnsupportedImage:
        return True


def _write_beside(image: Path, packet: bytes | None, writer: Writer) -> None:
    """Write the packet beside an image; one that is there keeps its other properties."""
    path = packet_path(image)
    made = writer.packet(None if is_foreign(path) else packet)
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
