"""What a dataset format yields: records whose images may still lie inside an archive."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from captune.images.signatures import IMAGE_SUFFIXES


class UnreadableImage(Exception):
    """An image in an archive that cannot be read, or is too large to be one: which, and why."""


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image that lies inside a tar shard, a Parquet file or a Hub data set.

    `name` is the file name it should get; `read` returns its bytes as they were stored or raises `UnreadableImage`,
    and may only be called before the next record is asked for. Images with equal bytes are one image, unless the
    captions tell them apart by their `key`.
    """

    name: str
    read: Callable[[], bytes]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """An image with its references as the source states them; with a `question`, its answers.

    `where` says where in the source it stands ("captions.txt, line 12"), for messages, `named`
    what it calls the image. `rejected` counts captions that the source marks as unfit; they are not among the
    references, of which there may then be none.
    """

    id: str
    image: Path | EmbeddedImage
    references: tuple[str, ...]
    split: str | None = None
    where: str = ""
    question: str = ""
    named: str = ""
    rejected: int = 0

    @property
    def other_name(self) -> str | None:
        """What the image's file is called where the source calls it otherwise; None for a bare id."""
        ending = PurePath(self.named).suffix
        actual = PurePath(self.image.name).name
        if ending.lower() not in IMAGE_SUFFIXES or _plain(actual) == _plain(self.named):
            return None
        return actual


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of the source that could not be used: where it stands, and what is wrong with it."""

    where: str
    reason: str


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
