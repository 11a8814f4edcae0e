"""What a dataset format yields: records whose pictures may still lie inside an archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """A picture that lies inside a tar shard, a Parquet file or a Hub data set.

    `name` is the file name it should get; `read` returns its bytes as they were stored
    and may only be called before the next record is asked for. Pictures with equal bytes are
    one picture, unless the captions tell them apart by their `key`.
    """

    name: str
    read: Callable[[], bytes]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A picture with its references as the source states them; with a `question`, its answers.

    `where` says where in the source it stands ("captions.txt, line 12"), for messages.
    """

    id: str
    image: Path | EmbeddedImage
    references: tuple[str, ...]
    split: str | None = None
    where: str = ""
    question: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of the source that could not be used: where it stands, and what is wrong with it."""

    where: str
    reason: str
