"""Images that are files: on this machine, or on a file system that fsspec knows."""

from __future__ import annotations

from collections.abc import Iterator

from captune.core.files.paths import ANYWHERE, Boundary, Refused, is_open_address
from captune.core.stores.files import Fetch, is_remote
from captune.datasets.sources.input_shards import ImageSource, InputShard, Unreadable


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """The input shard of one file; `list_input_shards` puts many into one."""
    yield InputShard("files", "", 0, 1, (location,))


def read(shard: InputShard) -> Iterator[ImageSource]:
    boundary = Boundary([shard.inside], anywhere=shard.inside in ("", ANYWHERE))
    for name in shard.names:
        if is_remote(name):
            allowed = boundary.anywhere or is_open_address(name)
            source: Fetch | str = Fetch(name)
        else:
            allowed, source = boundary.holds(name), name
        yield ImageSource(name, source if allowed else Unreadable(Refused(name, boundary.reason(name))))
