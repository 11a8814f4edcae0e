"""Parquet files: images as bytes in a column, or as paths; read batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.files.paths import BESIDE, Images
from captune.datasets.merge import Problems, SourceRecord
from captune.datasets.sources import parquet
from captune.datasets.sources.parquet import LostRows, embedded_columns, opened_table
from captune.datasets.tables.columns import ADDRESS, Columns, columns_missing, find_columns, split_from_name
from captune.datasets.tables.embedded import EmbeddedRow, embedded_row, group_embedded
from captune.datasets.tables.files import find_shards
from captune.datasets.tables.rows import Row, Side, group, note, row_of

DESCRIPTION = "Parquet: an image column (path, bytes, or Hugging Face's bytes and path) and captions (text or list)"
RANK = 20


def sniff(source: Path, images: Path | None = None) -> str | None:
    for path in _files(source)[:1]:
        try:
            with opened_table(str(path)) as file:
                columns = _columns(file.schema_arrow)
        except CaptuneError:
            return None
        # Ids in place of file names may mean anything, unless the file was named.
        fits = columns is not None and (path == source or not columns[0].by_id)
        return f"{path.name} has an image and a caption column" if fits else None
    return None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    paths = _files(source)
    if not paths:
        raise CaptuneError(f"There are no Parquet files in {source}.", "Name a .parquet file or its folder.")
    tables = _checked(paths)
    if any(embedded for _, embedded in tables.values()):
        return group_embedded(_cells(tables, source, images or BESIDE, problems), problems, str(source))
    return group(_rows(tables, problems), source, images, problems)


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    tables = _checked(_files(source), side)
    if not any(embedded for _, embedded in tables.values()):
        yield from _rows(tables, problems)
        return
    # Images without a name are told apart by their bytes.
    yield from map(row_of, group_embedded(_cells(tables, source, BESIDE, problems), problems, str(source)))


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file, with all their columns. Raises `CaptuneError` for what is not Parquet, or is damaged."""
    with opened_table(str(path)) as file:
        for number, row in parquet.table_rows(file, str(path), file.schema_arrow.names):
            if isinstance(row, LostRows):
                raise CaptuneError(f"{path}, row {number + 1}: {row.reason}.", "Download or write the file again.")
            yield row


def _files(source: Path) -> list[Path]:
    return find_shards(source, (".parquet", ".pq"))


def _checked(paths: list[Path], side: Side = "references") -> dict[Path, tuple[Columns, bool]]:
    """The columns of each shard, and whether its images are bytes.

    Raises `CaptuneError` for what is not Parquet or lacks a column, and where only some shards hold bytes.
    """
    tables: dict[Path, tuple[Columns, bool]] = {}
    for path in paths:
        with opened_table(str(path)) as file:
            schema = file.schema_arrow
        columns = _columns(schema, side)
        if columns is None and (address := next((name for name in schema.names if name.lower() in ADDRESS), None)):
            raise CaptuneError(
                f"{path} names its images by address ({address}), and prepare fetches nothing.",
                "Download them first, with img2dataset for example, and prepare what that writes.",
            )
        if columns is None:
            raise columns_missing(path, schema.names)
        first = next(iter(tables.items()), (path, columns))
        if first[1][1] != columns[1]:
            with_bytes, other = (first[0], path) if first[1][1] else (path, first[0])
            raise CaptuneError(
                f"{with_bytes.name} holds the images themselves, {other.name} their names.",
                "Name one kind at a time: part-*.parquet, or a folder for each.",
            )
        tables[path] = columns
    return tables


def _columns(schema: Any, side: Side = "references") -> tuple[Columns, bool] | None:
    embedded = embedded_columns(schema)
    columns = find_columns(schema.names, image=embedded[0] if embedded else None, side=side)
    return (columns, bool(embedded)) if columns else None


def table_rows(
    path: Path, columns: list[str], problems: Problems, *, largest: int = MAX_IMAGE_BYTES
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers from 1, few in memory at a time; rows that cannot be read are problems."""
    with opened_table(str(path)) as file:
        for number, row in parquet.table_rows(file, str(path), columns, largest=largest):
            if isinstance(row, LostRows):
                rows = f"row {number + 1}" if row.count == 1 else f"rows {number + 1} to {number + row.count}"
                note(problems, f"{path.name}, {rows}", row.reason)
            else:
                yield number + 1, row


def _read_columns(columns: Columns) -> list[str]:
    named = [columns.image, *columns.captions, columns.split, columns.id, columns.name, columns.question]
    named += [*columns.beside, *columns.rejected, *columns.accepted]
    named += [columns.status, "error"] if columns.status else []
    return list(dict.fromkeys(name for name in named if name))


def _cells(
    tables: dict[Path, tuple[Columns, bool]], source: Path, images: Images, problems: Problems
) -> Iterator[EmbeddedRow]:
    boundary = images.boundary(*dict.fromkeys([*([source] if source.is_dir() else ()), *(p.parent for p in tables)]))
    for path, (columns, _) in tables.items():
        split = split_from_name(path.stem) or split_from_name(path.parent.name)
        bases = [*([images.folder] if images.folder else ()), path.parent]
        for number, row in table_rows(path, _read_columns(columns), problems):
            yield embedded_row(f"{path.name}, row {number}", row, split, columns, boundary, bases)


def _rows(tables: dict[Path, tuple[Columns, bool]], problems: Problems) -> Iterator[Row]:
    for path, (columns, _) in tables.items():
        split = split_from_name(path.stem) if len(tables) > 1 else None
        for number, row in table_rows(path, _read_columns(columns), problems):
            yield columns.row(path, number, row, split, "row")
