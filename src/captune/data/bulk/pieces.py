"""The input of a job in pieces: each becomes one result shard, and can be read by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from captune.core.errors import CaptuneError, UsageError
from captune.core.tables import Table
from captune.data.bulk.listing import FILES, check_listed, find_places
from captune.data.inside import ANYWHERE
from captune.data.patterns import Listed

SHARD_SIZE = 1000

# Each a module with find(place, shard_size) -> Iterator[Piece] and read(piece) -> Iterator[Picture].
KINDS = Table(
    "kind of input",
    {
        FILES: "captune.data.bulk.files",
        "tar": "captune.data.bulk.tar",
        "parquet": "captune.data.bulk.parquet",
        "datasets": "captune.data.bulk.datasets",
    },
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the input. What `place`, `start` and `names` mean is the kind's own affair.

    `count` is how many pictures come out of it, None where only reading tells. `inside` is the folder that a table or
    a list may name files in: "" a table's own (files that the user named need none), `inside.ANYWHERE` no limit.
    """

    kind: str
    place: str
    start: int = 0
    count: int | None = None
    names: tuple[str, ...] = ()
    inside: str = ""

    def to_json(self) -> dict[str, Any]:
        told = {**asdict(self), "names": list(self.names)}
        if not self.inside:
            del told["inside"]
        return told

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Piece:
        return cls(**{**value, "names": tuple(value["names"])})


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the input: `name` is unique in the job, `source` a path, bytes, or what fetches the bytes.

    A source that fetches raises `ImageError` where the picture cannot be had; it may be called
    in any thread, and sent to another process.
    """

    name: str
    source: str | bytes | Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The source of a picture that is known to be lost: it raises the reason."""

    error: CaptuneError

    def __call__(self) -> bytes:
        raise self.error


def find_pieces(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    shard_size: int = SHARD_SIZE,
    warn: Callable[[str], None] | None = None,
    images: str | None = None,
    allow_outside: bool = False,
) -> Iterator[Piece]:
    """The pieces of all inputs, in order, the same each time; no picture is opened.

    Files of pictures share a piece up to `shard_size`; an archive has pieces of its own. `warn` is told what
    of a folder was left alone. Tables may name files in the folder `images` (None: in their own), lists in it or in
    the working folder; `allow_outside`: anywhere. Raises
    `UsageError` where nothing is found, `CaptuneError` for an archive that cannot be opened.
    """
    given = [item if isinstance(item, Listed) else os.fspath(item) for item in inputs]
    inside = ANYWHERE if allow_outside else os.path.abspath(images) if images else ""
    listed = inside or os.getcwd()
    check_listed([item for item in given if isinstance(item, Listed)], listed)
    held: list[str] = []
    of_held = ""
    start = 0
    empty = True
    for kind, place in find_places(given, recursive=recursive, warn=warn, listed=listed):
        limit = listed if isinstance(place, Listed) else ""
        if held and (kind != FILES or len(held) == shard_size or limit != of_held):
            yield Piece(FILES, "", start, len(held), tuple(held), of_held)
            start, held, empty = start + len(held), [], False
        if kind == FILES:
            held.append(place)
            of_held = limit
        else:
            for piece in KINDS[kind].find(place, shard_size):
                yield replace(piece, inside=inside)
                empty = False
    if held:
        yield Piece(FILES, "", start, len(held), tuple(held), of_held)
    elif empty:
        raise UsageError(f"There are no pictures in {', '.join(given[:3])}.", "Does it hold what you expect?")


def read_piece(piece: Piece) -> Iterator[Picture]:
    """The pictures of a piece, in order, as they are needed.

    Raises `CaptuneError` where the piece as a whole cannot be read (any more); what concerns a single
    picture comes out of its source.
    """
    found: Iterator[Picture] = KINDS[piece.kind].read(piece)
    return found
