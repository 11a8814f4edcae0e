"""A picture in a cell of a table: which column it is in, and what lies there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from captune.core.errors import CaptuneError, ImageError
from captune.data.bulk.pieces import ImageSource, Unreadable
from captune.data.bulk.remote import Fetch, is_remote
from captune.data.formats.columns import ADDRESS, IMAGE
from captune.data.inside import ANYWHERE, Images, Refused, is_open_address, local_path


def picture_columns(names: Iterable[str], embedded: Sequence[str], location: str) -> tuple[str, str | None]:
    """The column with the pictures (bytes before paths before addresses), and one with names of embedded ones."""
    names = [str(name) for name in names]
    stated = picture_column(name for name in names if name not in embedded)
    if embedded:
        return embedded[0], stated
    if stated is None:
        raise CaptuneError(
            f"{location}: there is no column of pictures among {', '.join(names[:12])}.",
            "Name the one with bytes, paths or addresses 'image' (or image_path, file_name, url).",
        )
    return stated, None


def picture_column(names: Iterable[str]) -> str | None:
    """The column that names pictures: by their paths, else by their addresses."""
    plain = {_plain(name): name for name in names}
    return next((plain[name] for name in (*IMAGE, *ADDRESS) if name in plain), None)


def is_address_column(name: str) -> bool:
    """Whether a column holds addresses, by its name."""
    return _plain(name) in ADDRESS


def _plain(name: str) -> str:
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


class Table:
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


def picture_in(where: str, cell: Any, stated: Any, table: Table) -> ImageSource:
    """The picture of a row: named `where`, and its own file name behind it if it has one."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None
    path = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
    own = path or (stated if isinstance(stated, str) else None)
    name = f"{where}/{PurePosixPath(own).name}" if own else where
    if content:
        return ImageSource(name, content)
    if not path:
        return ImageSource(name, Unreadable(ImageError(name, "there is no picture in this row", kind="missing")))
    return ImageSource(name, table.source(name, path))
