"""How large the cells of a Parquet file are, from the headers of its pages: before pyarrow makes room for them.

The file's footer says as well, but nothing holds it to the truth; pyarrow goes by the pages. Their headers are
Thrift's compact protocol (apache/parquet-format, `PageHeader`).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captune.core.limits import LARGEST_BATCH, LARGEST_PICTURE

_AT_ONCE = 16  # rows: a photo may have 20 MB
# Values of a column of lists: so many a row, and so many besides.
_VALUES_A_ROW, _VALUES = 1_000, 100_000
# Fields of PageHeader and of what it holds.
_UNPACKED, _PACKED, _HEADERS, _COUNT = 2, 3, (5, 7, 8), 1
_DEEPEST = 4


class TooLarge(Exception):
    """A group of rows that would take more memory than any picture needs, or whose size cannot be told: why."""


class _Page(NamedTuple):
    unpacked: int
    values: int


def rows_at_once(
    path: Path | None,
    file: Any,
    group: int,
    columns: Sequence[str],
    *,
    largest: int = LARGEST_PICTURE,
    batch: int = LARGEST_BATCH,
) -> int:
    """How many rows of a group may be read at once, at most 16; raises `TooLarge` where one cell may be too large.

    `file` is a `pyarrow.parquet.ParquetFile`, `path` its file on this machine: None for one elsewhere, of which only
    the footer is read.
    """
    about = file.metadata.row_group(group)
    biggest = 1
    for number in range(about.num_columns):
        chunk = about.column(number)
        name = chunk.path_in_schema
        if not any(name == column or name.startswith(f"{column}.") for column in columns):
            continue
        if path is None:
            biggest = max(biggest, chunk.total_uncompressed_size // max(1, chunk.num_values))
            continue
        pages = list(_pages(path, chunk))
        biggest = max(biggest, *(page.unpacked for page in pages), 1)
        values = sum(page.values for page in pages)
        if file.schema.column(number).max_repetition_level and values > _VALUES + _VALUES_A_ROW * about.num_rows:
            raise TooLarge(f"the file holds {values:,} values in {about.num_rows:,} rows of '{name}' here")
    if biggest > largest:
        raise TooLarge(f"the file holds cells of up to {biggest:,} bytes here; a picture has {largest:,} at most")
    return max(1, min(_AT_ONCE, batch // biggest))


def _pages(path: Path, chunk: Any) -> Iterator[_Page]:
    starts = [at for at in (chunk.dictionary_page_offset, chunk.data_page_offset) if at]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = _Header(data, min(starts, default=0))
        end = min(header.at + chunk.total_compressed_size, len(data))
        try:
            while header.at < end:
                fields = header.struct()
                inner: dict[int, Any] = next((fields[one] for one in _HEADERS if one in fields), {})
                yield _Page(int(fields[_UNPACKED]), int(inner.get(_COUNT, 0)))
                header.at += max(0, int(fields[_PACKED]))
        except (IndexError, KeyError, TypeError, ValueError):
            raise TooLarge("the file cannot be read here (the header of a page is damaged)") from None


class _Header:
    """Reads a struct of Thrift's compact protocol at a place of some bytes, and moves behind it."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Values by the number of their field; None for what no page's size depends on."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            found[field] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true, false
            return kind == 1
        if kind in (4, 5, 6):  # whole numbers of 16, 32 and 64 bits
            return self._signed()
        if kind == 12:
            return self.struct(depth + 1)
        sizes = {3: 1, 7: 8}  # a byte, a double
        if kind not in sizes and kind != 8:
            raise ValueError("no such field in a page's header")
        size = sizes[kind] if kind in sizes else self._varint()  # 8: bytes, such as the least value of a page
        self.at += size
        return None

    def _byte(self) -> int:
        found = self.data[self.at]
        self.at += 1
        return found

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
