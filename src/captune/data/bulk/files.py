"""Pictures that are files: on this machine, or on a file system that fsspec knows."""

from __future__ import annotations

from collections.abc import Iterator

from captune.data.bulk.pieces import Picture, Piece
from captune.data.bulk.remote import Fetch, is_remote


def find(place: str, shard_size: int) -> Iterator[Piece]:
    """The piece of one file; `find_pieces` puts many into one."""
    yield Piece("files", "", 0, 1, (place,))


def read(piece: Piece) -> Iterator[Picture]:
    for name in piece.names:
        yield Picture(name, Fetch(name) if is_remote(name) else name)
