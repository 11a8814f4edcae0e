"""How large the cells of a Parquet file are, from the headers of its pages: before pyarrow makes room for them.

The file's footer says as well, but nothing holds it to the truth; pyarrow goes by the pages. Their headers, and the
footer that says where they lie, are Thrift's compact protocol (apache/parquet-format, `PageHeader`, `FileMetaData`).
"""

import mmap
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from captune.core.files.limits import MAX_BATCH_BYTES, MAX_IMAGE_BYTES, max_rows

_AT_ONCE = 16  # rows: a photo may have 20 MB
# Values of a column of lists: so many a row, and so many besides.
_VALUES_A_ROW, _VALUES = 1_000, 100_000
# Fields of PageHeader and of what it holds.
_UNPACKED, _PACKED, _HEADERS, _COUNT = 2, 3, (5, 7, 8), 1
# Of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_GROUPS, _COLUMNS, _ABOUT = 4, 1, 3
_PATH, _PACKED_CHUNK, _STARTS = 3, 7, (9, 11)
_END = 8  # bytes behind the footer: its length, and PAR1
_DEEPEST = 12
_LONGEST_NAME = 4096  # bytes: longer ones are least and greatest values of columns
_WRONG = (IndexError, KeyError, TypeError, ValueError, AttributeError)
_DAMAGED = "the file cannot be read here (what it says of its columns is damaged)"


class TooLarge(Exception):
    """A group of rows that would take more memory than any image needs, or whose size cannot be told: why."""


class _Chunk(NamedTuple):
    """A column of a group of rows: its name, its first byte in the file, and how many it has there."""

    name: str
    start: int
    packed: int


class _Page(NamedTuple):
    unpacked: int
    values: int


def check_rows(file: Any, size: int) -> None:
    """Raise `ValueError` where a Parquet file (of pyarrow) of `size` bytes says it has more rows than those hold."""
    if file.metadata.num_rows > max_rows(size):
        raise ValueError(f"it says it has {file.metadata.num_rows:,} rows in {size:,} bytes")


def rows_at_once(
    path: Path | None,
    file: Any,
    group: int,
    columns: Sequence[str],
    *,
    largest: int = MAX_IMAGE_BYTES,
    batch: int = MAX_BATCH_BYTES,
) -> int:
    """How many rows of a group may be read at once, at most 16; raises `TooLarge` where one cell may be too large.

    `file` is a `pyarrow.parquet.ParquetFile`, `path` its file on this machine: None for one elsewhere, of which only
    the mean size of its rows is known.
    """
    rows = file.metadata.row_group(group).num_rows
    biggest = 1
    if path is None:
        biggest += file.metadata.row_group(group).total_byte_size // max(1, rows)
    else:
        lists = {
            file.schema.column(n).path for n in range(len(file.schema)) if file.schema.column(n).max_repetition_level
        }
        for chunk in _chunks(path, group):
            if not any(chunk.name == column or chunk.name.startswith(f"{column}.") for column in columns):
                continue
            pages = list(_pages(path, chunk))
            biggest = max(biggest, *(page.unpacked for page in pages), 1)
            values = sum(page.values for page in pages)
            if chunk.name in lists and values > _VALUES + _VALUES_A_ROW * rows:
                raise TooLarge(f"the file holds {values:,} values in {rows:,} rows of '{chunk.name}' here")
    if biggest > largest:
        raise TooLarge(f"the file holds cells of up to {biggest:,} bytes here; an image has {largest:,} at most")
    return max(1, min(_AT_ONCE, batch // biggest))


def _chunks(path: Path, group: int) -> list[_Chunk]:
    status = path.stat()
    groups = _footer(path, status.st_mtime_ns, status.st_size)
    if group >= len(groups):
        raise TooLarge(_DAMAGED)
    return groups[group]


@lru_cache(maxsize=4)
def _footer(path: Path, changed: int, size: int) -> list[list[_Chunk]]:
    """The columns of each group of rows. Read here, since pyarrow ends the process over some that are damaged."""
    with open(path, "rb") as file:
        file.seek(max(0, size - _END))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - _END - length))
        data = file.read(length)
    try:
        return [[_chunk(one[_ABOUT]) for one in group[_COLUMNS]] for group in _Header(data, 0).struct()[_GROUPS]]
    except _WRONG:
        raise TooLarge(_DAMAGED) from None


def _chunk(about: dict[int, Any]) -> _Chunk:
    starts = [about[field] for field in _STARTS if about.get(field)]
    name = b".".join(about[_PATH]).decode("utf-8", "replace")
    return _Chunk(name, min(starts, default=0), about[_PACKED_CHUNK])


def _pages(path: Path, chunk: _Chunk) -> Iterator[_Page]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = _Header(data, chunk.start)
        end = min(chunk.start + chunk.packed, len(data))
        try:
            while header.at < end:
                fields = header.struct()
                inner: dict[int, Any] = next((fields[one] for one in _HEADERS if one in fields), {})
                yield _Page(int(fields[_UNPACKED]), int(inner.get(_COUNT, 0)))
                header.at += max(0, int(fields[_PACKED]))
        except _WRONG:
            raise TooLarge(_DAMAGED) from None


class _Header:
    """Reads structs of Thrift's compact protocol from a place of some bytes on."""

    def __init__(self, data: mmap.mmap | bytes, at: int) -> None:
        self.data, self.at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Values by the number of their field; None for what no page's size depends on."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            fields[field] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true, false
            return kind == 1
        if kind in (4, 5, 6):  # whole numbers of 16, 32 and 64 bits
            return self._signed()
        if kind == 12:
            return self.struct(depth + 1)
        if kind in (9, 10):  # lists and sets
            return self._list(depth)
        sizes = {3: 1, 7: 8}  # a byte, a double
        if kind not in sizes and kind != 8:
            raise ValueError("no such field")
        size = sizes[kind] if kind in sizes else self._varint()  # 8: bytes, such as a name
        self.at += size
        return bytes(self.data[self.at - size : self.at]) if size <= _LONGEST_NAME else None

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > len(self.data) - self.at:
            raise ValueError("a list longer than its file")
        kind = 3 if head & 15 in (1, 2) else head & 15  # truth values have a byte each here
        return [self._value(kind, depth) for _ in range(count)]

    def _byte(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        return byte

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("a number without end")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
