"""Tar shards (WebDataset and plain): every picture in them, with or without a text.

A tar on this machine is split at members, found by reading its headers alone; one elsewhere or
compressed is one input shard. What cannot be read on is one row more, named as the tar itself.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import open_regular
from captune.core.names import below
from captune.data.bulk import remote
from captune.data.bulk.pieces import ImageSource, InputShard, Unreadable
from captune.data.formats.tar_entries import what_instead
from captune.data.signatures import PICTURE_SUFFIXES
from captune.data.tar_headers import BROKEN, Header

KIND = "tar"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: where its header begins, and its bytes unless only headers are read.

    `other` says what is there instead where it has no bytes of its own.
    """

    name: str
    offset: int
    data: bytes | None
    size: int
    other: str = ""

    @property
    def key(self) -> str:
        """What the members of a sample share: the name up to the first dot behind the folders."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def is_picture(self) -> bool:
        base = self.name.rpartition("/")[2]
        dot = base.rfind(".")
        return dot > 0 and base[dot:].lower() in PICTURE_SUFFIXES


@dataclass(frozen=True, slots=True)
class CutOff:
    """The end of what can be read of a tar that is not whole."""

    reason: str


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """Input shards of `shard_size` pictures that split no sample: `start` is a byte, `names` those that came before."""
    if not _is_seekable(location):
        _check(location)
        yield InputShard(KIND, location)
        return
    seen: set[str] = set()
    again: list[str] = []
    start = count = 0
    sample = held = 0  # where the sample at hand begins, and that of the last picture
    key = None
    for member in members(location, headers=True):
        if isinstance(member, CutOff):  # no count: once the tar is whole again, the rest is to come out too
            yield InputShard(KIND, location, start, None, tuple(again))
            return
        if member.key != key:
            key, sample = member.key, member.offset
        if not member.is_picture:
            continue
        if count >= shard_size and sample != held:
            yield InputShard(KIND, location, start, count, tuple(again))
            start, count, again = sample, 0, []
        if member.name in seen:
            again.append(member.name)
        seen.add(member.name)
        held = sample
        count += 1
    if count:
        yield InputShard(KIND, location, start, count, tuple(again))


def read(shard: InputShard) -> Iterator[ImageSource]:
    for name, member in named(shard):
        if isinstance(member, CutOff):
            error = ImageError(name, member.reason, "Copy or download it again.", kind="truncated")
            yield ImageSource(name, Unreadable(error))
        elif name:
            yield ImageSource(name, member.data if member.data is not None else Unreadable(_lost(name, member)))


def named(shard: InputShard) -> Iterator[tuple[str, Member | CutOff]]:
    """All members of the samples of a shard; an image, and a cut-off end, has the name of its row, the rest none."""
    seen = set(shard.names)
    left = shard.count
    key = None
    for member in members(shard.location, shard.start):
        if left == 0 and (isinstance(member, CutOff) or member.key != key):
            return
        if isinstance(member, CutOff):
            yield shard.location, member
            return
        key = member.key
        if not member.is_picture:
            yield "", member
            continue
        name = f"{shard.location}/{member.name}"
        if member.name in seen:  # a tar may hold a name twice
            name = f"{name}#{member.offset}"
        seen.add(member.name)
        left = None if left is None else left - 1
        yield name, member


def members(location: str, start: int = 0, *, headers: bool = False) -> Iterator[Member | CutOff]:
    """The files in a tar from the header at byte `start` on, then perhaps why it cannot be read on.

    With `headers` no data is read. Raises `CaptuneError` where the tar cannot be opened.
    """
    after = ""
    with _opened(location) as file:
        try:
            mode = _mode(location)
            whole = file.seek(0, os.SEEK_END) if mode == "r:" else 0
            if mode == "r:":
                file.seek(start)
            with tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as tar:
                for entry in tar:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                    base = entry.name.rpartition("/")[2]
                    if entry.isdir() or base.startswith(".") or entry.name.startswith("__MACOSX/"):
                        continue
                    if not entry.isfile():
                        yield Member(entry.name.removeprefix("./"), entry.offset, None, 0, what_instead(entry))
                        continue
                    if mode == "r:" and entry.offset_data + entry.size > whole:
                        raise tarfile.ReadError(f"its data ends within {entry.name}")
                    data = None
                    if not headers and entry.size <= remote.LARGEST_PICTURE:
                        content = tar.extractfile(entry)
                        assert content is not None
                        data = content.read()
                    yield Member(below(entry.name), entry.offset, data, entry.size)
                    after = entry.name
        except BROKEN as error:
            yield CutOff(_reason(after, str(error) or type(error).__name__))


def _mode(location: str) -> Any:
    """How tarfile reads: with seeking, as a stream (servers on the web may not seek), or a compressed stream."""
    if not location.lower().endswith(".tar"):
        return "r|*"
    return "r|" if remote.is_web(location) else "r:"


class _Header(Header):
    """A header that is none, or missing at the end of the file, is an error: tarfile takes it for the tar's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.count(0) == tarfile.BLOCKSIZE:  # the end mark
                raise
            raise tarfile.ReadError(str(error) if buf else "its end is missing") from None


def _reason(after: str, why: str) -> str:
    where = f"after {after}" if after else "at its beginning"
    return f"this tar cannot be read on {where} ({why}); what followed is missing"


def _lost(name: str, member: Member) -> ImageError:
    if member.other:
        return ImageError(name, member.other, "Unpack the tar and caption the folder.", kind="missing")
    return ImageError(name, f"has {member.size:,} bytes, too many for a picture", "Is it a picture?", kind="giant")


def _is_seekable(location: str) -> bool:
    return location.lower().endswith(".tar") and not remote.is_remote(location)


def _check(location: str) -> None:
    """Raise `CaptuneError` where there is no such file."""
    with _opened(location):
        return


@contextmanager
def _opened(location: str) -> Iterator[Any]:
    if remote.is_remote(location):
        with remote.opened(location, stream=remote.is_web(location)) as file:
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
