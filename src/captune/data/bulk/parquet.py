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
from captune.data.bulk.pieces import Picture, Piece, Unreadable
from captune.data.formats.parquet import embedded_columns
from captune.data.formats.text import check_file
from captune.data.parquet_pages import TooLarge, check_rows, rows_at_once

KIND = "parquet"
_FEW = 16  # rows that say what a column holds


def find(place: str, shard_size: int) -> Iterator[Piece]:
    """Pieces of `shard_size` rows: `start` is the first row. Only the file's end is read."""
    with _opened(place) as file:
        _columns(file, place)
        rows = file.metadata.num_rows
    for start in range(0, rows, shard_size):
        yield Piece(KIND, place, start, min(shard_size, rows - start))


def read(piece: Piece) -> Iterator[Picture]:
    """Rows of a piece, a few in memory at a time; where the file is damaged, the rest are lost with the reason."""
    import pyarrow as pa

    assert piece.count is not None
    row, end = piece.start, piece.start + piece.count
    table = Table(piece.place, piece.inside)
    with _opened(piece.place) as file:
        image, name = _columns(file, piece.place)
        try:
            for cells in _rows(file, piece.place, row, end, [column for column in (image, name) if column]):
                where = f"{piece.place}#{row}"
                if isinstance(cells, TooLarge):
                    yield Picture(where, Unreadable(ImageError(where, str(cells), kind="giant")))
                else:
                    yield picture_in(where, cells[image], cells.get(name or ""), table)
                row += 1
        except (OSError, ValueError, WebError, pa.ArrowException) as error:
            reason = f"the file cannot be read here ({first_line(error)})"
            for lost in range(row, end):
                where = f"{piece.place}#{lost}"
                yield Picture(where, Unreadable(ImageError(where, reason, "Download or write it again.")))


def holds(place: str) -> Literal["pictures", "addresses", "none"]:
    """Whether a table has pictures or their paths, only their addresses (`url`, or names that begin with one), or none.

    Raises `CaptuneError` where the file cannot be read.
    """
    with _opened(place) as file:
        schema = file.schema_arrow
        if embedded_columns(schema):
            return "pictures"
        column = picture_column(schema.names)
        if column is None:
            return "none"
        told = is_address_column(column) or any(map(_is_address, _first_cells(file, place, column)))
        return "addresses" if told else "pictures"


def _is_address(cell: Any) -> bool:
    return isinstance(cell, str) and remote.is_remote(cell)


def _first_cells(file: Any, place: str, column: str) -> list[Any]:
    rows = _rows(file, place, 0, min(_FEW, file.metadata.num_rows), [column])
    return [row[column] for row in rows if not isinstance(row, TooLarge)]


def _rows(file: Any, place: str, start: int, end: int, columns: list[str]) -> Iterator[dict[str, Any] | TooLarge]:
    """Rows from `start` to before `end`, or why one takes too much; groups of rows that lie outside are not read."""
    path = None if remote.is_remote(place) else Path(place)
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


def _columns(file: Any, place: str) -> tuple[str, str | None]:
    schema = file.schema_arrow
    return picture_columns(schema.names, embedded_columns(schema), place)


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    """The file; raises `CaptuneError` where it is none, or not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    local = not remote.is_remote(place)
    if local:
        check_file(Path(place))
    opening: AbstractContextManager[Any] = nullcontext(place) if local else remote.opened(place)
    with opening as source:
        try:
            file = pq.ParquetFile(source, memory_map=local, pre_buffer=False)
            check_rows(file, os.path.getsize(place) if local else source.seek(0, os.SEEK_END))
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a server that gives whole files alone
            raise CaptuneError(
                f"{place}: not a whole Parquet file ({first_line(error)}).", "Download or write it again."
            ) from None
        with file:
            yield file
