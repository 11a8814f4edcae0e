"""Parquet files: pictures as bytes in a column, or as paths; read batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, first_line
from captune.core.limits import MAX_IMAGE_BYTES
from captune.data.formats.columns import ADDRESS, IMAGE, Columns, expected, find_columns
from captune.data.formats.embedded import Cell, group_cells
from captune.data.formats.grouping import group
from captune.data.formats.places import shards
from captune.data.formats.rows import Row, Side, note, row_of
from captune.data.formats.split_words import split_in
from captune.data.formats.text import check_file
from captune.data.inside import BESIDE, Boundary, Images, local_path
from captune.data.parquet_pages import TooLarge, check_rows, rows_at_once
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "Parquet: an image column (path, bytes, or Hugging Face's bytes and path) and captions (text or list)"
RANK = 20
# Of bytes beside the usual names of pictures: what img2dataset and others call theirs.
_BYTES = ("bytes", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes", "image_data", "img_data")


def sniff(source: Path, images: Path | None = None) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in _files(source)[:1]:
        try:
            found = _columns(pq.read_schema(path))
        except (OSError, UnicodeDecodeError, pa.ArrowException):
            return None
        # Ids in place of file names may mean anything, unless the file was named.
        fits = found is not None and (path == source or not found[0].by_id)
        return f"{path.name} has an image and a caption column" if fits else None
    return None


def read(
    source: Path, *, images: Images | None = None, problems: list[Problem] | None = None
) -> Iterator[SourceRecord]:
    paths = _files(source)
    if not paths:
        raise CaptuneError(f"There are no Parquet files in {source}.", "Name a .parquet file or its folder.")
    found = _checked(paths)
    if any(embedded for _, embedded in found.values()):
        return group_cells(_cells(found, source, images or BESIDE, problems), problems, str(source))
    return group(_rows(found, problems), source, images, problems)


def rows(source: Path, problems: list[Problem] | None, side: Side = "references") -> Iterator[Row]:
    found = _checked(_files(source), side)
    if not any(embedded for _, embedded in found.values()):
        yield from _rows(found, problems)
        return
    # Images without a name are told apart by their bytes.
    yield from map(row_of, group_cells(_cells(found, source, BESIDE, problems), problems, str(source)))


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file, with all their columns. Raises `CaptuneError` for what is not Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise not_whole(path, error) from None
    yield from (row for _, row in table_rows(path, names, None))


def not_whole(path: Path, error: Exception) -> CaptuneError:
    """The error of a file that is not Parquet, or only the beginning of it."""
    return CaptuneError(f"{path}: not a whole Parquet file ({first_line(error)}).", "Download or write it again.")


def _files(source: Path) -> list[Path]:
    return shards(source, (".parquet", ".pq"))


def _checked(paths: list[Path], side: Side = "references") -> dict[Path, tuple[Columns, bool]]:
    """The columns of each shard, and whether its images are bytes.

    Raises `CaptuneError` for what is not Parquet or lacks a column, and where only some shards hold bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[Path, tuple[Columns, bool]] = {}
    for path in paths:
        check_file(path)
        try:
            schema = pq.read_schema(path)
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise not_whole(path, error) from None
        columns = _columns(schema, side)
        if columns is None and (address := next((name for name in schema.names if name.lower() in ADDRESS), None)):
            raise CaptuneError(
                f"{path} names its pictures by address ({address}), and prepare fetches nothing.",
                "Download them first, with img2dataset for example, and prepare what that writes.",
            )
        if columns is None:
            raise CaptuneError(
                f"{path}: expected {expected()}; found {', '.join(schema.names[:12])}.", "Rename its columns."
            )
        first = next(iter(found.items()), (path, columns))
        if first[1][1] != columns[1]:
            with_bytes, other = (first[0], path) if first[1][1] else (path, first[0])
            raise CaptuneError(
                f"{with_bytes.name} holds the images themselves, {other.name} their names.",
                "Name one kind at a time: part-*.parquet, or a folder for each.",
            )
        found[path] = columns
    return found


def _columns(schema: Any, side: Side = "references") -> tuple[Columns, bool] | None:
    embedded = embedded_columns(schema)
    columns = find_columns(schema.names, image=embedded[0] if embedded else None, side=side)
    return (columns, bool(embedded)) if columns else None


def embedded_columns(schema: Any) -> list[str]:
    """Names of the columns that hold pictures as bytes, or as Hugging Face's pair of bytes and path."""
    import pyarrow.types as types

    return [
        field.name
        for field in schema
        if (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        or (
            (types.is_binary(field.type) or types.is_large_binary(field.type))
            and field.name.lower() in (*IMAGE, *_BYTES)
        )
    ]


def table_rows(
    path: Path, columns: list[str], problems: list[Problem] | None, *, largest: int = MAX_IMAGE_BYTES
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers from 1, few in memory at a time; groups of rows whose cells are too large are problems.

    Raises `CaptuneError` where the file cannot be read on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            check_rows(file, path.stat().st_size)
            present = [name for name in columns if name in file.schema_arrow.names]
            for index in range(file.num_row_groups):
                first, number = number, number + file.metadata.row_group(index).num_rows
                try:
                    several = rows_at_once(path, file, index, present, largest=largest)
                except TooLarge as error:
                    rows = f"row {number}" if number == first + 1 else f"rows {first + 1} to {number}"
                    note(problems, f"{path.name}, {rows}", str(error))
                    continue
                for batch in file.iter_batches(batch_size=several, row_groups=[index], columns=present):
                    for row in plain_rows(batch):
                        first += 1
                        if row is None:
                            note(problems, f"{path.name}, row {first}", "a text in it is not UTF-8")
                        else:
                            yield first, row
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CaptuneError(f"{path}: cannot be read on ({first_line(error)}).", "Download or write it again.") from None


def plain_rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch as Python's values; None for one with a text that is not UTF-8."""
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
            yield None


def _wanted(columns: Columns) -> list[str]:
    named = [columns.image, *columns.captions, columns.split, columns.id, columns.name, columns.question]
    named += [
        *columns.beside,
        *columns.rejected,
        *columns.accepted,
        columns.status,
        "error" if columns.status else None,
    ]
    return list(dict.fromkeys(name for name in named if name))


def _cells(
    found: dict[Path, tuple[Columns, bool]], source: Path, images: Images, problems: list[Problem] | None
) -> Iterator[Cell]:
    boundary = images.boundary(*dict.fromkeys([*([source] if source.is_dir() else ()), *(p.parent for p in found)]))
    for path, (columns, _) in found.items():
        split = split_in(path.stem) or split_in(path.parent.name)
        bases = [*([images.folder] if images.folder else ()), path.parent]
        for number, row in table_rows(path, _wanted(columns), problems):
            data, name, bad = picture_of(row[columns.image], boundary, bases)
            stated = str(row.get(columns.name) or "") if columns.name else ""
            yield Cell(f"{path.name}, row {number}", data, stated or name, row, split, columns, bad)


def picture_of(value: Any, boundary: Boundary, bases: Sequence[Path]) -> tuple[bytes | None, str, str]:
    """Bytes and name of a cell, and why there are no bytes: bytes, or {"bytes", "path"} of which one may be missing."""
    if isinstance(value, bytes):
        return value, "", ""
    if not isinstance(value, dict):
        return None, "", ""
    data, name = value.get("bytes"), value.get("path") or ""
    if data is None and isinstance(name, str) and name:
        path = boundary.find(local_path(name), bases)
        if path is None:
            return None, name, boundary.reason(name)
        if os.path.isfile(path):
            try:
                if (size := os.path.getsize(path)) > MAX_IMAGE_BYTES:
                    return None, name, f"{name} has {size:,} bytes, too many for a picture"
                data = Path(path).read_bytes()
            except OSError as error:
                return None, name, f"{name} cannot be read ({error.strerror})"
    return data, name, ""


def _rows(found: dict[Path, tuple[Columns, bool]], problems: list[Problem] | None) -> Iterator[Row]:
    for path, (columns, _) in found.items():
        split = split_in(path.stem) if len(found) > 1 else None
        for number, row in table_rows(path, _wanted(columns), problems):
            yield columns.row(path, number, row, split, "row")
