"""Images in Parquet files: bytes, paths or addresses; for `caption` each row of the file gives a row."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from captune.core.errors import CaptuneError, ImageError, ImageErrorKind, first_line
from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.files.paths import ANYWHERE, Images, Refused, is_open_address, local_path
from captune.core.http import WebError
from captune.core.stores import files
from captune.core.stores.files import Fetch, is_remote
from captune.datasets.sources.input_shards import ImageSource, InputShard, Unreadable
from captune.datasets.sources.parquet_pages import TooLarge, check_rows, rows_at_once
from captune.datasets.tables.columns import ADDRESS, IMAGE, plain_name
from captune.datasets.tables.text import check_file

# Of bytes beside the usual names of images: what img2dataset and others call theirs.
_BYTES = ("bytes", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes", "image_data", "img_data")
NO_IMAGE = "there is no image in this row"


def image_columns(names: Iterable[str], embedded: Sequence[str], location: str) -> tuple[str, str | None]:
    """The column with the images (bytes before paths before addresses), and one with names of embedded ones."""
    names = [str(name) for name in names]
    stated = image_column(name for name in names if name not in embedded)
    if embedded:
        return embedded[0], stated
    if stated is None:
        raise CaptuneError(
            f"{location}: there is no column of images among {', '.join(names[:12])}.",
            "Name the one with bytes, paths or addresses 'image' (or image_path, file_name, url).",
        )
    return stated, None


def image_column(names: Iterable[str]) -> str | None:
    """The column that names images: by their paths, else by their addresses."""
    plain = {plain_name(name): name for name in names}
    return next((plain[name] for name in (*IMAGE, *ADDRESS) if name in plain), None)


def embedded_columns(schema: Any) -> list[str]:
    """The columns of an Arrow schema that hold images as bytes, or as Hugging Face's pair of bytes and path."""
    import pyarrow.types as types

    return [
        field.name
        for field in schema
        if (types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        or (
            (types.is_binary(field.type) or types.is_large_binary(field.type))
            and plain_name(field.name) in (*IMAGE, *_BYTES)
        )
    ]


def split_cell(cell: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path in a cell (bytes, a path, or Hugging Face's pair of both); None for what is missing."""
    if isinstance(cell, dict):
        content, path = cell.get("bytes"), cell.get("path")
    else:
        content, path = (cell, None) if isinstance(cell, bytes) else (None, cell)
    return content or None, path if isinstance(path, str) and path else None


class TableImages:
    """A table with its images: where it lies (None: a data set of the Hub), and where the files may that it names.

    Paths are looked for from the folder of images if one was named, from the table's folder, then from the working
    folder. What they may name is told by `inside`, as in `InputShard`.
    """

    def __init__(self, location: str | None, inside: str) -> None:
        self.location = None if location is None else local_path(location)
        images = Images(Path(inside) if inside not in ("", ANYWHERE) else None, inside == ANYWHERE)
        own = [] if self.location is None or is_remote(self.location) else [os.path.dirname(self.location)]
        self._boundary = images.boundary(*own)
        self._bases = [*([inside] if images.folder else []), *own, ""]

    def source(self, name: str, path: str) -> str | Fetch | Unreadable:
        """What gives the bytes of the image that a row names; where that may not be named, it raises the reason."""
        remote = f"{self.location.rpartition('/')[0]}/{path}" if self.location and is_remote(self.location) else None
        address = path if is_remote(path) and local_path(path) == path else remote
        if address is not None and (self._boundary.anywhere or _is_open(address)):
            return Fetch(address)
        file = None if address is not None else self._boundary.find(local_path(path), self._bases)
        return file if file is not None else Unreadable(Refused(name, self._boundary.reason(path)))


def _is_open(address: str) -> bool:
    return is_open_address(address) and os.pardir not in address.split("/")


def decode_cell(where: str, cell: Any, stated: Any, table: TableImages) -> ImageSource:
    """The image of a row: named `where`, and its own file name behind it if it has one."""
    content, path = split_cell(cell)
    own = path or (stated if isinstance(stated, str) else None)
    name = f"{where}/{PurePosixPath(own).name}" if own else where
    if content:
        return ImageSource(name, content)
    if not path:
        return ImageSource(name, Unreadable(ImageError(name, NO_IMAGE, kind="missing")))
    return ImageSource(name, table.source(name, path))


def with_prompt(image: ImageSource, row: dict[str, Any], column: str) -> ImageSource:
    """An image with the prompt in a column of its row; without one where the cell is empty or no text."""
    cell = row.get(column) if column else None
    return replace(image, prompt=cell) if isinstance(cell, str) and cell.strip() else image


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
        columns = [column for column in (image, name, shard.prompts) if column]
        rows = table_rows(file, shard.location, columns, shard.start, shard.start + shard.count, largest=largest)
        for number, row in rows:
            if not isinstance(row, LostRows):
                found = decode_cell(f"{shard.location}#{number}", row[image], row.get(name or ""), table)
                yield with_prompt(found, row, shard.prompts)
                continue
            for lost in range(number, number + row.count):
                where = f"{shard.location}#{lost}"
                yield ImageSource(where, Unreadable(ImageError(where, row.reason, row.step, kind=row.kind)))


def image_shard(location: str, rest: str) -> InputShard:
    """The row of an image; `rest` is `#ROW`, perhaps with a file name behind it."""
    return InputShard(KIND, location, row_number(rest), 1)


def row_number(rest: str) -> int:
    """The row in `#ROW` or `#ROW/NAME`; raises KeyError where there is none."""
    number = rest.removeprefix("#").partition("/")[0]
    if not rest.startswith("#") or not number.isascii() or not number.isdigit():
        raise KeyError(rest)
    return int(number)


def columns_of(location: str) -> list[str]:
    """The names of a file's columns."""
    with opened_table(location) as file:
        return [str(name) for name in file.schema_arrow.names]


def holds(location: str) -> Literal["images", "addresses", "none"]:
    """Whether a table has images or their paths, only their addresses (`url`, or names that begin with one), or none.

    Raises `CaptuneError` where the file cannot be read.
    """
    with opened_table(location) as file:
        schema = file.schema_arrow
        if embedded_columns(schema):
            return "images"
        column = image_column(schema.names)
        if column is None:
            return "none"
        if plain_name(column) in ADDRESS:
            return "addresses"
        rows = table_rows(file, location, [column], 0, _FEW)
        cells = [row[column] for _, row in rows if not isinstance(row, LostRows)]
        return "addresses" if any(isinstance(cell, str) and files.is_remote(cell) for cell in cells) else "images"


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

    path = None if files.is_remote(location) else Path(location)
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

    local = not files.is_remote(location)
    if local:
        check_file(Path(location))
    opening: AbstractContextManager[Any] = nullcontext(location) if local else files.opened(location)
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
