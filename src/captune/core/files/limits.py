"""Limits for files from strangers: compressed data, JSON and YAML that would grow without end are errors.

Python's own parsers stop at the depth of its stack (`RecursionError`, which no reader expects), leave values so deep
that showing them fails, and raise a bare `ValueError` for a number of more than 4,300 digits. YAML's aliases let a
kilobyte stand for more values than any memory holds.
"""

import gzip
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import numpy as np
import yaml

# Bytes of one image as it is stored: a photograph of 400 megapixels as TIFF fits.
MAX_IMAGE_BYTES = 512 * 1024 * 1024
# Bytes of one text or sidecar: some million words.
MAX_TEXT_BYTES = 16 * 1024 * 1024
# Bytes of all texts of a shard, which are in memory at once: those of 10,000 images have some 5 MB.
MAX_SHARD_TEXT_BYTES = 512 * 1024 * 1024
# Bytes that cells read at once may take together, in a table that holds its images.
MAX_BATCH_BYTES = 128 * 1024 * 1024
# Of a compressed file, beyond its first bytes: text packs 3 to 30 times; only repetition without end goes further.
MIN_UNPACKED_LIMIT = 256 * 1024 * 1024
MAX_COMPRESSION = 200
# Rows of a table: so many besides, and a few for each of its bytes; rows that differ have bytes of their own.
FREE_ROWS = 100_000
ROWS_PER_BYTE = 4


def max_rows(size: int) -> int:
    """Rows that a table whose files have `size` bytes may say it has."""
    return FREE_ROWS + ROWS_PER_BYTE * size


# Levels of lists in lists: annotations and model configurations have five or six.
MAX_DEPTH = 64
# Values of a configuration with its aliases written out, and letters of its text: captune's own have two hundred and
# six thousand. A megabyte of YAML takes its parser half a minute.
MAX_VALUES = 100_000
MAX_YAML_CHARS = 500_000
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises `json.JSONDecodeError` for whatever is wrong with it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("Nested too deeply", text, 0) from None
    except ValueError:
        raise json.JSONDecodeError("A number of too many digits", text, 0) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        raise json.JSONDecodeError("Nested too deeply", text, 0)
    return value


def is_deep(value: Any) -> bool:
    """Whether a value has more than `MAX_DEPTH` lists in lists."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values; raises `yaml.YAMLError` for whatever is wrong with it."""
    if len(text) > MAX_YAML_CHARS:
        raise yaml.YAMLError(f"more than {MAX_YAML_CHARS:,} letters")
    depth = accumulate(_STEPS.get(sign, 0) for sign in text) if text.count("[") + text.count("{") > MAX_DEPTH else ()
    if max(depth, default=0) > MAX_DEPTH:  # its parser needs the square of the depth in time
        raise yaml.YAMLError("nested too deeply")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a date that does not exist, a number of too many digits
        raise yaml.YAMLError(str(error)) from None


class _Loader(yaml.SafeLoader):
    """Counts what aliases stand for before any value is made of them."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return node


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node and below; one that holds itself has more than any budget."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # until it is counted
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_count_values(n, known) for n in inner))
    return known[id(node)]


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
