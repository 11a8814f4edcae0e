"""The input of a job in pieces: each becomes one result shard, and can be read by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from captune.data.bulk.listing import find_pictures

SHARD_SIZE = 1000
FILES = "files"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the input. What `place`, `start` and `names` mean is the kind's own affair.

    `count` is how many pictures come out of it, None where only reading tells.
    """

    kind: str
    place: str
    start: int = 0
    count: int | None = None
    names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Piece:
        return cls(**{**value, "names": tuple(value["names"])})


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the input: `name` is unique in the job, `source` a path, bytes, or what fetches the bytes.

    A source that fetches raises `ImageError` where the picture cannot be had; it may be called in any thread.
    """

    name: str
    source: str | bytes | Callable[[], bytes]


def find_pieces(
    inputs: Iterable[str | os.PathLike[str]], *, recursive: bool = True, shard_size: int = SHARD_SIZE
) -> Iterator[Piece]:
    """The pieces of all inputs, in order, the same each time; no picture is opened.

    Raises `UsageError` where nothing is found.
    """
    names = find_pictures(inputs, recursive=recursive)
    for start in range(0, len(names), shard_size):
        held = tuple(names[start : start + shard_size])
        yield Piece(FILES, "", start, len(held), held)


def read_piece(piece: Piece) -> Iterator[Picture]:
    """The pictures of a piece, in order, as they are needed.

    Raises `CaptuneError` where the piece as a whole cannot be read (any more); what concerns a single
    picture comes out of its source.
    """
    yield from (Picture(name, name) for name in piece.names)
