"""Tars, WebDataset's shards and plain ones: the one reader of `prepare` and `caption`.

A tar may come from a stranger: what its headers declare is checked before `tarfile` reads it into memory. A tar on
this machine is split at members, found by reading its headers alone; one elsewhere or compressed is one input shard.
"""

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import open_regular
from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.files.paths import is_hidden
from captune.core.stores import files
from captune.core.text import member_name
from captune.datasets.sources.input_shards import ImageSource, InputShard, Unreadable
from captune.images.signatures import is_image_name

KIND = "tar"


# What reading a tar that is damaged, or made to do harm, raises: a thousand long names for one member end the stack.
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RecursionError)
# Bytes of a name, or of a header's other properties: a path has 4,096, attributes of a file system up to 64 KiB.
LONGEST_HEADER = 1_048_576
_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: where its header and its bytes begin, and its bytes where they were loaded.

    `other` says what is there instead where it has no bytes of its own, `link` names the target of a hard link.
    """

    name: str
    offset: int
    size: int
    data_offset: int = 0
    data: bytes | None = None
    other: str = ""
    link: str = ""

    @property
    def key(self) -> str:
        """What the members of a sample share: the name up to the first dot behind the folders."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def is_image(self) -> bool:
        return is_image_name(self.name)


@dataclass(frozen=True, slots=True)
class CutOff:
    """The end of what can be read of a tar that is not whole."""

    reason: str


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """Input shards of `shard_size` images that split no sample: `start` is a byte, `names` those that came before."""
    if not _is_seekable(location):
        yield InputShard(KIND, location)
        return
    known: set[str] = set()
    again: list[str] = []
    start = count = 0
    sample = last = 0  # where the current sample begins, and that of the last image
    key = None
    for member in members(location, load=headers_only):
        if isinstance(member, CutOff):  # no count: once the tar is whole again, the rest is to come out too
            yield InputShard(KIND, location, start, None, tuple(again))
            return
        if member.key != key:
            key, sample = member.key, member.offset
        if not member.is_image:
            continue
        if count >= shard_size and sample != last:
            yield InputShard(KIND, location, start, count, tuple(again))
            start, count, again = sample, 0, []
        if member.name in known:
            again.append(member.name)
        known.add(member.name)
        last = sample
        count += 1
    if count:
        yield InputShard(KIND, location, start, count, tuple(again))


def read(shard: InputShard) -> Iterator[ImageSource]:
    for name, member in named_members(shard):
        if isinstance(member, CutOff):
            error = ImageError(name, member.reason, "Copy or download it again.", kind="truncated")
            yield ImageSource(name, Unreadable(error))
        elif name:
            yield ImageSource(name, member.data if member.data is not None else Unreadable(_lost(name, member)))


def image_shard(location: str, rest: str) -> InputShard:
    """The part of a tar with one image; `rest` is `/NAME`, or `/NAME#BYTE` of one whose name was there before.

    Of a tar that cannot be split it is all of it.
    """
    if not _is_seekable(location):
        return InputShard(KIND, location)
    state = os.stat(location)
    name, offsets = rest.removeprefix("/"), _offsets(location, state.st_size, state.st_mtime_ns)
    if name in offsets:
        return InputShard(KIND, location, offsets[name], 1)
    name, _, offset = name.rpartition("#")
    if name not in offsets or not offset.isdigit():
        raise KeyError(rest)
    return InputShard(KIND, location, int(offset), 1, (name,))


@lru_cache(maxsize=4)
def _offsets(location: str, size: int, modified: int) -> dict[str, int]:
    """Where the header of each image begins in a tar as it is now, the first of a name: read once for all."""
    found: dict[str, int] = {}
    for member in members(location, load=headers_only):
        if isinstance(member, Member) and member.is_image:
            found.setdefault(member.name, member.offset)
    return found


def named_members(shard: InputShard) -> Iterator[tuple[str, Member | CutOff]]:
    """All members of the samples of a shard: with the name of its row for an image or a cut-off end, else ""."""
    known = set(shard.names)
    left = shard.count
    key = None
    for member in members(shard.location, shard.start):
        if left == 0 and (isinstance(member, CutOff) or member.key != key):
            return
        if isinstance(member, CutOff):
            yield shard.location, member
            return
        key = member.key
        if not member.is_image:
            yield "", member
            continue
        name = f"{shard.location}/{member.name}"
        if member.name in known:  # a tar may hold a name twice
            name = f"{name}#{member.offset}"
        known.add(member.name)
        left = None if left is None else left - 1
        yield name, member


def no_larger_than_an_image(member: Member) -> bool:
    return member.size <= MAX_IMAGE_BYTES


def headers_only(member: Member) -> bool:
    return False


def members(
    location: str, start: int = 0, *, load: Callable[[Member], bool] = no_larger_than_an_image
) -> Iterator[Member | CutOff]:
    """The files in a tar from the header at byte `start` on, then perhaps why it cannot be read on.

    The bytes of those are read for which `load` is true. Hidden files are left out. Raises `CaptuneError` where the
    tar cannot be opened.
    """
    last = ""
    broken = _BROKEN if files.is_remote(location) else (*_BROKEN, OSError)
    with _opened(location) as file:
        try:
            mode = _mode(location, file)
            size = file.seek(0, os.SEEK_END) if mode == "r:" else 0
            if mode == "r:":
                file.seek(start)
            with tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as tar:
                for entry in tar:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                    name = member_name(entry.name)
                    if entry.isdir() or any(map(is_hidden, name.split("/"))):
                        continue
                    member = Member(name, entry.offset, entry.size, entry.offset_data)
                    if not entry.isfile():
                        link = member_name(entry.linkname) if entry.islnk() else ""
                        yield replace(member, size=0, other=_what_instead(entry), link=link)
                        continue
                    if mode == "r:" and entry.offset_data + entry.size > size:
                        raise tarfile.ReadError(f"it is cut off within {entry.name}")
                    if load(member):
                        content = tar.extractfile(entry)
                        assert content is not None
                        member = replace(member, data=content.read())
                    yield member
                    last = member.key
        except broken as error:
            where = f"after sample {last}" if last else "at its beginning"
            why = str(error) or type(error).__name__
            yield CutOff(f"this tar cannot be read on {where} ({why}); what followed is missing")


def is_compressed(file: Any) -> bool:
    """Whether an open file is compressed; it is at its beginning afterwards."""
    head = file.read(6)
    file.seek(0)
    return bool(head.startswith(_COMPRESSED))


def _mode(location: str, file: Any) -> Any:
    """How tarfile reads: with seeking, or as a stream: what is compressed, and what a server on the web gives."""
    return "r|*" if files.is_web(location) or is_compressed(file) else "r:"


class _Header(tarfile.TarInfo):
    """A header that is none, or missing at the end of the file, is an error: tarfile takes it for the tar's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.count(0) == tarfile.BLOCKSIZE:  # the end mark
                raise
            why = str(error) if len(buf) == tarfile.BLOCKSIZE else "it is cut off: its end is missing"
            raise tarfile.ReadError(why) from None
        if header.type in _EXTENDING and not 0 <= header.size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a name or header of {header.size:,} bytes")
        return header


def _what_instead(entry: tarfile.TarInfo) -> str:
    """What an entry is that has no bytes of its own: a link and where it leads, a pipe, a device."""
    if entry.islnk() or entry.issym():
        kind = "hard link" if entry.islnk() else "link"
        return f"is a {kind} to {entry.linkname}, which tars hold without its bytes"
    return "is a pipe, not a file" if entry.isfifo() else "is a device, not a file"


def _lost(name: str, member: Member) -> ImageError:
    if member.other:
        return ImageError(name, member.other, "Unpack the tar and caption the folder.", kind="missing")
    return ImageError(name, f"has {member.size:,} bytes, too many for an image", "Is it an image?", kind="giant")


def _is_seekable(location: str) -> bool:
    """Whether a tar can be split; raises `CaptuneError` where there is no such file."""
    with _opened(location) as file:
        return location.lower().endswith(".tar") and not files.is_remote(location) and not is_compressed(file)


@contextmanager
def _opened(location: str) -> Iterator[Any]:
    if files.is_remote(location):
        with files.opened(location, stream=files.is_web(location)) as file:
            yield file
        return
    try:
        with open_regular(location) as file:
            yield file
    except FileNotFoundError:
        raise CaptuneError(f"There is no file {location}.", "Check the path.") from None
    except OSError as error:
        raise CaptuneError(
            f"Cannot read {location}: {error.strerror or error}.", "Check the path and the disk."
        ) from None
