"""Compressed files of strangers: a small one that unpacks without end is an error, and so is one that lies."""

from __future__ import annotations

import gzip
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from captune.core.limits import MAX_COMPRESSION, MIN_UNPACKED_LIMIT


def max_unpacked(path: str | os.PathLike[str], *, free: int = MIN_UNPACKED_LIMIT, most: int = MAX_COMPRESSION) -> int:
    """Bytes that a compressed file of its size may unpack to."""
    return max(free, most * os.path.getsize(path))


class LimitedGzip(gzip.GzipFile):
    """The bytes of a gzip file; raises `OSError` once they are more than `limit`."""

    def __init__(self, path: str | os.PathLike[str], limit: int) -> None:
        super().__init__(path, "rb")
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        """As of any file; a whole one is read in parts, so that the limit comes first."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        found = super().read(size)
        self._check()
        return found

    def read1(self, size: int = -1) -> bytes:
        found = super().read1(size)
        self._check()
        return found

    def _check(self) -> None:
        if self.tell() > self._limit:
            raise OSError(f"it unpacks to more than {self._limit:,} bytes, far more than texts do")


@contextmanager
def open_arrays(path: str | os.PathLike[str], *, limit: int | None = None) -> Iterator[Any]:
    """The arrays of an `.npz` by name, as `np.load` gives them, once each is known to be as large as it says.

    Raises `ValueError` for what is none, for one that lies about its shape, and for more than `limit` bytes in all
    (by default what files of its size unpack to); `OSError`, `zipfile.BadZipFile` as reading does.
    """
    most = max_unpacked(path) if limit is None else limit
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > most:
                raise ValueError(f"it unpacks to {unpacked:,} bytes, more than the {most:,} of such files")
            for info in archive.infolist():
                with archive.open(info) as member:
                    _check_shape(member, info)
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (zlib.error, RuntimeError) as error:  # damaged; locked, or in a way that zipfile does not know
        raise ValueError(str(error)) from None


def _check_shape(member: Any, info: zipfile.ZipInfo) -> None:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    start = io.BytesIO(member.read(1 << 16))
    read = readers.get(np.lib.format.read_magic(start))
    if read is None:
        raise ValueError(f"{info.filename} is in a format of arrays that is not known")
    shape, _, dtype = read(start)
    declared, there = math.prod(shape) * dtype.itemsize, info.file_size - start.tell()
    if declared != there:
        raise ValueError(f"{info.filename} says it has {declared:,} bytes and has {there:,}")
