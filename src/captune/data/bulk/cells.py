"""Images in the cells of a table: which column holds them, and what a cell gives. For `prepare` and `caption`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from captune.core.errors import CaptuneError, ImageError
from captune.data.bulk.pieces import ImageSource, Unreadable
from captune.data.bulk.remote import Fetch, is_remote
from captune.data.formats.columns import ADDRESS, IMAGE, plain_name
from captune.data.inside import ANYWHERE, Images, Refused, is_open_address, local_path

# Of bytes beside the usual names of images: what img2dataset and others call theirs.
_BYTES = ("bytes", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes", "image_data", "img_data")
NO_IMAGE = "there is no picture in this row"


def image_columns(names: Iterable[str], embedded: Sequence[str], location: str) -> tuple[str, str | None]:
    """The column with the pictures (bytes before paths before addresses), and one with names of embedded ones."""
    names = [str(name) for name in names]
    stated = image_column(name for name in names if name not in embedded)
    if embedded:
        return embedded[0], stated
    if stated is None:
        raise CaptuneError(
            f"{location}: there is no column of pictures among {', '.join(names[:12])}.",
            "Name the one with bytes, paths or addresses 'image' (or image_path, file_name, url).",
        )
    return stated, None


def image_column(names: Iterable[str]) -> str | None:
    """The column that names pictures: by their paths, else by their addresses."""
    plain = {plain_name(name): name for name in names}
    return next((plain[name] for name in (*IMAGE, *ADDRESS) if name in plain), None)


def is_address_column(name: str) -> bool:
    """Whether a column holds addresses, by its name."""
    return plain_name(name) in ADDRESS


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
    """A table with its pictures: where it lies (None: a data set of the Hub), and where the files may that it names.

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
        """What gives the bytes of the picture that a row names; where that may not be named, it raises the reason."""
        remote = f"{self.location.rpartition('/')[0]}/{path}" if self.location and is_remote(self.location) else None
        address = path if is_remote(path) and local_path(path) == path else remote
        if address is not None and (self._boundary.anywhere or _is_open(address)):
            return Fetch(address)
        found = None if address is not None else self._boundary.find(local_path(path), self._bases)
        return found if found is not None else Unreadable(Refused(name, self._boundary.reason(path)))


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
