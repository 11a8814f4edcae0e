"""A picture in a cell of a table: which column it is in, and what lies there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.bulk.pieces import Picture, Unreadable
from captune.data.bulk.remote import Fetch, is_remote
from captune.data.formats.columns import ADDRESS, IMAGE
from captune.data.images import ImageError


def picture_columns(names: Iterable[str], embedded: Sequence[str], place: str) -> tuple[str, str | None]:
    """The column with the pictures (bytes before paths before addresses), and one with names of embedded ones."""
    names = [str(name) for name in names]
    stated = picture_column(name for name in names if name not in embedded)
    if embedded:
        return embedded[0], stated
    if stated is None:
        raise CaptuneError(
            f"{place}: there is no column of pictures among {', '.join(names[:12])}.",
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


def picture_in(where: str, cell: Any, stated: Any, table: str) -> Picture:
    """The picture of a row: named `where`, and its own file name behind it if it has one.

    Paths are looked for from the table's folder, then from the working folder.
    """
    content = cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None
    path = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
    own = path or (stated if isinstance(stated, str) else None)
    name = f"{where}/{PurePosixPath(own).name}" if own else where
    if content:
        return Picture(name, content)
    if not path:
        return Picture(name, Unreadable(ImageError(name, "there is no picture in this row", kind="missing")))
    if is_remote(path):
        return Picture(name, Fetch(path))
    if is_remote(table):
        return Picture(name, Fetch(f"{table.rpartition('/')[0]}/{path}"))
    beside = os.path.join(os.path.dirname(table), path)
    return Picture(name, beside if os.path.exists(beside) or not os.path.exists(path) else path)
