"""Pictures that are files: on this machine, or on a file system that fsspec knows."""

from __future__ import annotations

from collections.abc import Iterator

from captune.data.bulk.pieces import Picture, Piece, Unreadable
from captune.data.bulk.remote import Fetch, is_remote
from captune.data.inside import ANYWHERE, Boundary, Refused, is_open_address


def find(place: str, shard_size: int) -> Iterator[Piece]:
    """The piece of one file; `find_pieces` puts many into one."""
    yield Piece("files", "", 0, 1, (place,))


def read(piece: Piece) -> Iterator[Picture]:
    boundary = Boundary([piece.inside], anywhere=piece.inside in ("", ANYWHERE))
    for name in piece.names:
        if is_remote(name):
            allowed = boundary.anywhere or is_open_address(name)
            source: Fetch | str = Fetch(name)
        else:
            allowed, source = boundary.holds(name), name
        yield Picture(name, source if allowed else Unreadable(Refused(name, boundary.reason(name))))
