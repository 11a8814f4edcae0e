"""Pictures in a Parquet file: bytes, Hugging Face's bytes and path, paths, or addresses; a row of it, a row out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from captune.core.errors import CaptuneError, ImageError, first_line
from captune.core.http import WebError
from captune.data.bulk import remote
from captune.data.bulk.cells import Table, is_address_column, picture_column, picture_columns, picture_in
from captune.data.bulk.pieces import ImageSource, InputShard, Unreadable
from captune.data.formats.parquet import embedded_columns
from captune.data.formats.text import check_file
from captune.data.parquet_pages import TooLarge, check_rows, rows_at_once

KIND = "parquet"
_FEW = 16  # rows that say what a column holds


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """Input shards of `shard_size` rows: `start` is the first row. Only the file's end is read."""
    with _opened(location) as file:
        _columns(file, location)
        rows = file.metadata.num_rows
    for start in range(0, rows, shard_size):
        yield InputShard(KIND, location, start, min(shard_size, rows - start))


def read(shard: InputShard) -> Iterator[ImageSource]:
    """Rows of a shard, a few in memory at a time; where the file is damaged, the rest are lost with the reason."""
    import pyarrow as pa

    assert shard.count is not None
    row, end = shard.start, shard.start + shard.count
    table = Table(shard.location, shard.inside)
    with _opened(shard.location) as file:
        image, name = _columns(file, shard.location)
        try:
            for cells in _rows(file, shard.location, row, end, [column for column in (image, name) if column]):
                where = f"{shard.location}#{row}"
                if isinstance(cells, TooLarge):
                    yield ImageSource(where, Unreadable(ImageError(where, str(cells), kind="giant")))
                else:
                    yield picture_in(where, cells[image], cells.get(name or ""), table)
                row += 1
        except (OSError, ValueError, WebError, pa.ArrowException) as error:
            reason = f"the file cannot be read here ({first_line(error)})"
            for lost in range(row, end):
                where = f"{shard.location}#{lost}"
                yield ImageSource(where, Unreadable(ImageError(where, reason, "Download or write it again.")))


def holds(location: str) -> Literal["pictures", "addresses", "none"]:
    """Whether a table has pictures or their paths, only their addresses (`url`, or names that begin with one), or none.

    Raises `CaptuneError` where the file cannot be read.
    """
    with _opened(location) as file:
        schema = file.schema_arrow
        if embedded_columns(schema):
            return "pictures"
        column = picture_column(schema.names)
        if column is None:
            return "none"
        told = is_address_column(column) or any(map(_is_address, _first_cells(file, location, column)))
        return "addresses" if told else "pictures"


def _is_address(cell: Any) -> bool:
    return isinstance(cell, str) and remote.is_remote(cell)


def _first_cells(file: Any, location: str, column: str) -> list[Any]:
    rows = _rows(file, location, 0, min(_FEW, file.metadata.num_rows), [column])
    return [row[column] for row in rows if not isinstance(row, TooLarge)]


def _rows(file: Any, location: str, start: int, end: int, columns: list[str]) -> Iterator[dict[str, Any] | TooLarge]:
    """Rows from `start` to before `end`, or why one takes too much; groups of rows that lie outside are not read."""
    path = None if remote.is_remote(location) else Path(location)
    first = 0  # row of the group
    for number in range(file.num_row_groups):
        last = first + file.metadata.row_group(number).num_rows
        if last > start and first < end:
            at = first
            try:
                several = rows_at_once(path, file, number, columns)
            except TooLarge as error:
                yield from repeat(error, min(last, end) - max(first, start))
                first = last
                continue
            for batch in file.iter_batches(batch_size=several, row_groups=[number], columns=columns):
                if at >= end:
                    return
                inside = batch.slice(max(0, start - at), min(len(batch), end - at) - max(0, start - at))
                yield from inside.to_pylist() if at + len(batch) > start else ()
                at += len(batch)
        first = last


def _columns(file: Any, location: str) -> tuple[str, str | None]:
    schema = file.schema_arrow
    return picture_columns(schema.names, embedded_columns(schema), location)


@contextmanager
def _opened(location: str) -> Iterator[Any]:
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
