"""Images that lie in table cells as bytes: told apart, named and handed on one at a time."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.files.paths import Boundary, local_path
from captune.datasets.merge import EmbeddedImage, Problems, SourceRecord
from captune.datasets.sources.parquet import NO_IMAGE, split_cell
from captune.datasets.tables.cells import NotText
from captune.datasets.tables.columns import Columns
from captune.datasets.tables.rows import NothingUsable, note
from captune.datasets.tables.text import caption_texts
from captune.images.signatures import is_image_name, suffix_of


class EmbeddedRow(NamedTuple):
    """One row of a table: where it stands, the image's bytes (None: none) and file name, the other columns.

    `columns` are those of the row's own shard, `bad` says why there are no bytes where that is known.
    """

    where: str
    data: bytes | None
    name: str
    row: Mapping[str, Any]
    split: str | None
    columns: Columns
    bad: str = ""


def group_embedded(cells: Iterable[EmbeddedRow], problems: Problems, source: str) -> Iterator[SourceRecord]:
    """Records of a table that is read once; one image is in memory at a time.

    Rows that follow each other with equal bytes and questions are one image: names in such tables often
    repeat ("image.jpg") or are missing. An image that comes back later is a record again,
    with the same bytes; only who keeps the images can join the two.
    """
    names = _Names()
    first: EmbeddedRow | None = None
    key = (b"", "")
    captions: list[str] = []
    rejected = 0
    for cell in cells:
        if not cell.data:
            note(problems, cell.where, cell.bad or NO_IMAGE)
            continue
        texts = _texts_of(cell, problems)
        if not texts:
            continue
        unfit = cell.columns.is_rejected(cell.row)
        here = _digest(cell.data), cell.columns.question_of(cell.row)
        if first is None or here != key:
            if first is not None:
                yield names.record(first, tuple(captions), rejected)
            first, key, captions, rejected = cell, here, [], 0
        if unfit:
            rejected += len(texts)
        else:
            captions += texts
    if first is None:
        raise NothingUsable(source, problems)
    yield names.record(first, tuple(captions), rejected)


def embedded_row(
    where: str, row: Mapping[str, Any], split: str | None, columns: Columns, boundary: Boundary, bases: Sequence[Path]
) -> EmbeddedRow:
    """A row with the bytes of its image; a path in the cell is looked up in `bases`, inside of `boundary`."""
    data, name, bad = _image_bytes(row[columns.image], boundary, bases)
    stated = str(row.get(columns.name) or "") if columns.name else ""
    return EmbeddedRow(where, data, stated or name, row, split, columns, bad)


def _image_bytes(value: Any, boundary: Boundary, bases: Sequence[Path]) -> tuple[bytes | None, str, str]:
    """The bytes and the file name in a cell, and why there are no bytes."""
    data, name = split_cell(value)
    if data is not None or name is None:
        return data, name or "", ""
    path = boundary.find(local_path(name), bases)
    if path is None:
        return None, name, boundary.reason(name)
    if os.path.isfile(path):
        try:
            if (size := os.path.getsize(path)) > MAX_IMAGE_BYTES:
                return None, name, f"{name} has {size:,} bytes, too many for an image"
            data = Path(path).read_bytes()
        except OSError as error:
            return None, name, f"{name} cannot be read ({error.strerror})"
    return data, name, ""


def _texts_of(cell: EmbeddedRow, problems: Problems) -> tuple[str, ...]:
    """The captions of a row; none is a problem."""
    try:
        captions = [] if cell.columns.unclear else cell.columns.texts(cell.row)
        why = cell.columns.unclear or "the caption is empty"
    except NotText as error:
        captions, why = [], str(error)
    texts = caption_texts(captions)
    if not texts:
        note(problems, cell.where, why)
    return texts


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class _Names:
    """File names and ids, each used once."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._files: set[str] = set()

    def record(self, cell: EmbeddedRow, captions: tuple[str, ...], rejected: int) -> SourceRecord:
        columns = cell.columns
        data = cell.data or b""
        split = columns.split_of(cell.row) or cell.split
        number = cell.where.rpartition(" ")[2]
        stated = PurePosixPath(cell.name.replace("\\", "/")).name
        identity = _unique(self._ids, columns.id_of(cell.row) or stated or f"{split or 'picture'}-{number}", data)
        name = stated if is_image_name(stated) else _file_name(stated or identity) + suffix_of(data)
        image = EmbeddedImage(_unique(self._files, name, data), lambda: data)
        return SourceRecord(
            identity, image, captions, split, cell.where, columns.question_of(cell.row), rejected=rejected
        )


def _file_name(text: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in text)


def _unique(used: set[str], name: str, data: bytes) -> str:
    """The name, with a part of the image's digest where it was given before."""
    if name in used:
        stem, suffix = os.path.splitext(name)
        name = f"{stem}-{_digest(data).hex()[:12]}{suffix}"
    used.add(name)
    return name
