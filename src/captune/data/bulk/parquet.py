"""Parquet files: the one reader of `prepare` and `caption`. Images are bytes, Hugging Face's pair of bytes and path,
paths, or addresses; for `caption` each row of the file gives a row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from captune.core.errors import CaptuneError, ImageError, ImageErrorKind, first_line
from captune.core.http import WebError
from captune.core.limits import MAX_IMAGE_BYTES
from captune.data.bulk import remote
from captune.data.bulk.cells import (
    TableImages,
    decode_cell,
    embedded_columns,
    image_column,
    image_columns,
    is_address_column,
)
from captune.data.bulk.pieces import ImageSource, InputShard, Unreadable
from captune.data.formats.text import check_file
from captune.data.parquet_pages import TooLarge, check_rows, rows_at_once

KIND = "parquet"
_FEW = 16  # rows that say what a column holds


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """Input shards of `shard_size` rows: `start` is the first row. Only the file's end is read."""
    with opened_table(location) as file:
        _columns(file, location)
        rows = file.metadata.num_rows
    for start in range(0, rows, shard_size):
        yield InputShard(KIND, location, start, min(shard_size, rows - start))


def read(shard: InputShard, *, largest: int = MAX_IMAGE_BYTES) -> Iterator[ImageSource]:
    """Rows of a shard, a few in memory at a time; where the file is damaged, the rest are lost with the reason."""
    assert shard.count is not None
    table = TableImages(shard.location, shard.inside)
    with opened_table(shard.location) as file:
        image, name = _columns(file, shard.location)
        columns = [column for column in (image, name) if column]
        rows = table_rows(file, shard.location, columns, shard.start, shard.start + shard.count, largest=largest)
        for number, row in rows:
            if not isinstance(row, LostRows):
                yield decode_cell(f"{shard.location}#{number}", row[image], row.get(name or ""), table)
                continue
            for lost in range(number, number + row.count):
                where = f"{shard.location}#{lost}"
                yield ImageSource(where, Unreadable(ImageError(where, row.reason, row.step, kind=row.kind)))


def holds(location: str) -> Literal["pictures", "addresses", "none"]:
    """Whether a table has pictures or their paths, only their addresses (`url`, or names that begin with one), or none.

    Raises `CaptuneError` where the file cannot be read.
    """
    with opened_table(location) as file:
        schema = file.schema_arrow
        if embedded_columns(schema):
            return "pictures"
        column = image_column(schema.names)
        if column is None:
            return "none"
        addresses = is_address_column(column) or any(map(_is_address, _first_cells(file, location, column)))
        return "addresses" if addresses else "pictures"


def _is_address(cell: Any) -> bool:
    return isinstance(cell, str) and remote.is_remote(cell)


def _first_cells(file: Any, location: str, column: str) -> list[Any]:
    rows = table_rows(file, location, [column], 0, _FEW)
    return [row[column] for _, row in rows if not isinstance(row, LostRows)]


@dataclass(frozen=True, slots=True)
class LostRows:
    """Rows that follow each other and cannot be read: how many, and why."""

    count: int
    reason: str
    step: str = ""
    kind: ImageErrorKind = "damaged"


def table_rows(
    file: Any,
    location: str,
    columns: Sequence[str],
    start: int = 0,
    end: int | None = None,
    *,
    largest: int = MAX_IMAGE_BYTES,
) -> Iterator[tuple[int, dict[str, Any] | LostRows]]:
    """Rows from `start` to before `end` with their numbers from 0, few in memory at a time, or why some are lost.

    `file` is what `opened_table` gave for `location`. Groups of rows that lie outside are not read. Cells of more
    than `largest` bytes and texts that are not UTF-8 are lost, and all rows from where the file is damaged.
    """
    import pyarrow as pa

    path = None if remote.is_remote(location) else Path(location)
    present = [name for name in columns if name in file.schema_arrow.names]
    end = min(file.metadata.num_rows, file.metadata.num_rows if end is None else end)
    row, after = start, 0  # the next row to come out, and the first of the next group
    try:
        for group in range(file.num_row_groups):
            at, after = after, after + file.metadata.row_group(group).num_rows
            if after <= start or at >= end:
                continue
            try:
                several = rows_at_once(path, file, group, present, largest=largest)
            except TooLarge as error:
                count = min(after, end) - row
                yield row, LostRows(count, str(error), kind="giant")
                row += count
                continue
            for batch in file.iter_batches(batch_size=several, row_groups=[group], columns=present):
                before = min(max(0, start - at), len(batch))
                for cells in _plain_rows(batch.slice(before, max(0, end - at - before))):
                    yield row, cells
                    row += 1
                at += len(batch)
    except (OSError, ValueError, WebError, pa.ArrowException) as error:
        reason = f"the file cannot be read here ({first_line(error)})"
        yield row, LostRows(end - row, reason, "Download or write it again.")


def _plain_rows(batch: Any) -> Iterator[dict[str, Any] | LostRows]:
    """The rows of a batch as Python's values; one with a text that is not UTF-8 is lost."""
    try:
        whole = batch.to_pylist()
    except UnicodeDecodeError:
        whole = None
    if whole is not None:
        yield from whole
        return
    for number in range(len(batch)):
        try:
            yield batch.slice(number, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield LostRows(1, "a text in it is not UTF-8")


def _columns(file: Any, location: str) -> tuple[str, str | None]:
    schema = file.schema_arrow
    return image_columns(schema.names, embedded_columns(schema), location)


@contextmanager
def opened_table(location: str) -> Iterator[Any]:
    """The file; raises `CaptuneError` where it is none, or not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    local = not remote.is_remote(location)
    if local:
        check_file(Path(location))
    opening: AbstractContextManager[Any] = nullcontext(location) if local else remote.opened(location)
    with opening as source:
        try:
            file = pq.ParquetFile(source, memory_map=local, pre_buffer=False)
            check_rows(file, os.path.getsize(location) if local else source.seek(0, os.SEEK_END))
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a server that gives whole files alone
            raise CaptuneError(
                f"{location}: not a whole Parquet file ({first_line(error)}).", "Download or write it again."
            ) from None
        with file:
            yield file
