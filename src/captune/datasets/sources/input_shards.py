"""Input shards: parts of a job's input that can each be read alone; one result shard comes of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.files.paths import ANYWHERE, Boundary, Listed, Refused, is_open_address
from captune.core.stores.files import Fetch, is_remote
from captune.core.tables import Table
from captune.datasets.sources.listing import FILES, check_listed, list_inputs

SHARD_SIZE = 1000

# Besides image files. Each a module with find(location, shard_size) -> Iterator[InputShard],
# read(shard) -> Iterator[ImageSource], and image_shard(location, rest) -> InputShard: the least part in which the image
# is whose name is the location and `rest`; KeyError where there is none.
KINDS = Table(
    "kind of input",
    {
        "tar": "captune.datasets.sources.tar",
        "parquet": "captune.datasets.sources.parquet",
        "datasets": "captune.datasets.sources.hub",
    },
)

_TABLES = ("parquet", "datasets")


@dataclass(frozen=True, slots=True)
class InputShard:
    """A part of the input. What `place`, `start` and `names` mean is the kind's own affair.

    `count` is how many images come out of it, None where only reading tells. `inside` is the folder that a table or
    a list may name files in: "" a table's own (files that the user named need none), `inside.ANYWHERE` no limit.
    `prompts` is the column of a table with the prompts of its rows.
    """

    kind: str
    location: str
    start: int = 0
    count: int | None = None
    names: tuple[str, ...] = ()
    inside: str = ""
    prompts: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it stands in a job's folder, where `location` has always been called `place`."""
        value = {"kind": self.kind, "place": self.location, "start": self.start, "count": self.count}
        value["names"] = list(self.names)
        return value | {name: each for name in ("inside", "prompts") if (each := getattr(self, name))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> InputShard:
        rest = {key: value[key] for key in ("kind", "start", "count", "inside", "prompts") if key in value}
        return cls(location=value["place"], names=tuple(value["names"]), **rest)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image of the input: `name` is unique in the job, `source` a path, bytes, or what fetches the bytes.

    A source that fetches raises `ImageError` where the image cannot be had; it may be called
    in any thread, and sent to another process. `prompt` is its own, word for word.
    """

    name: str
    source: str | bytes | Callable[[], bytes]
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The source of an image that is known to be lost: it raises the reason."""

    error: CaptuneError

    def __call__(self) -> bytes:
        raise self.error


def list_input_shards(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    shard_size: int = SHARD_SIZE,
    warn: Callable[[str], None] | None = None,
    images: str | None = None,
    allow_outside: bool = False,
    prompts: str | None = None,
) -> Iterator[InputShard]:
    """The input shards of all inputs, in order, the same each time; no image is opened.

    Image files share shards of up to `shard_size`; an archive has shards of its own. `warn` is told what
    of a folder was left alone. Tables may name files in the folder `images` (None: in their own), lists in it or in
    the working folder; `allow_outside`: anywhere. `prompts` is the column of tables with the prompts of rows. Raises
    `UsageError` where nothing is found, `CaptuneError` for an archive that cannot be opened.
    """
    items = [item if isinstance(item, Listed) else os.fspath(item) for item in inputs]
    has_column = prompts is None
    inside = ANYWHERE if allow_outside else os.path.abspath(images) if images else ""
    listed = inside or os.getcwd()
    check_listed([item for item in items if isinstance(item, Listed)], listed)
    files: list[str] = []
    limit = ""  # the folder inside of which `files` may lie
    start = 0
    empty = True
    for kind, location in list_inputs(items, recursive=recursive, warn=warn, listed=listed):
        its_limit = listed if isinstance(location, Listed) else ""
        if files and (kind != FILES or len(files) == shard_size or its_limit != limit):
            yield InputShard(FILES, "", start, len(files), tuple(files), limit)
            start, files, empty = start + len(files), [], False
        if kind == FILES:
            files.append(location)
            limit = its_limit
        else:
            if prompts is not None and kind in _TABLES:
                _check_column(prompts, KINDS[kind].columns_of(location), location)
                has_column = True
            for shard in KINDS[kind].find(location, shard_size):
                yield replace(shard, inside=inside, prompts=(prompts or "") if kind in _TABLES else "")
                empty = False
    if files:
        yield InputShard(FILES, "", start, len(files), tuple(files), limit)
    elif empty:
        raise UsageError(f"There are no images in {', '.join(items[:3])}.", "Does it hold what you expect?")
    if not has_column:
        raise UsageError(
            f"--prompt-column {prompts}: none of the inputs has columns.",
            "Give a Parquet file or a data set, or leave it out; --prompts gives images of files a prompt each.",
        )


def _check_column(name: str, names: list[str], location: str) -> None:
    if name not in names:
        raise UsageError(f"{location}: there is no column '{name}' for --prompt-column.", did_you_mean(name, names))


def read_images(shard: InputShard) -> Iterator[ImageSource]:
    """The images of an input shard, in order, as they are needed.

    Raises `CaptuneError` where the input shard as a whole cannot be read (any more); what concerns a single
    image comes out of its source.
    """
    images: Iterator[ImageSource] = _read_files(shard) if shard.kind == FILES else KINDS[shard.kind].read(shard)
    return images


def _read_files(shard: InputShard) -> Iterator[ImageSource]:
    """Images that are files: on this machine, or on a file system that fsspec knows."""
    boundary = Boundary([shard.inside], anywhere=shard.inside in ("", ANYWHERE))
    for name in shard.names:
        if is_remote(name):
            allowed = boundary.anywhere or is_open_address(name)
            source: Fetch | str = Fetch(name)
        else:
            allowed, source = boundary.holds(name), name
        yield ImageSource(name, source if allowed else Unreadable(Refused(name, boundary.reason(name))))
