"""Captions in tars with their pictures, as WebDataset reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from captune.core.errors import UsageError
from captune.data.bulk.names import is_result
from captune.data.bulk.pieces import SHARD_SIZE, InputShard
from captune.data.bulk.store import Store, check_written, open_store
from captune.data.bulk.tar_shards import publish_tar
from captune.data.writers.alt_text import check_source
from captune.data.writers.existing import ExistingCaptions
from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import needs_output


class TarWriter:
    """Tar shards `captions-00000.tar`, … of 1,000 pictures: each as it is, with `key.txt` and its row as `key.json`.

    A job keeps the samples of input tars together with all their other members. A failed picture has no `key.txt`.
    """

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        self.existing = existing or ExistingCaptions()
        if out is None:
            raise needs_output("A tar", "captions/")
        if out.is_file() or out.suffix == ".tar":
            raise UsageError(f"{out} is one file, tars need a folder.", "For example: --out captions/")
        self._store = open_store(str(out))
        self._held: list[CaptionRow] = []
        self._count = 0

    def check(self) -> None:
        """Raise `CaptuneError` where a tar stands that captune did not write, before anything is captioned."""
        if self.existing.mode != "replace":
            check_tars(self._store)

    def __enter__(self) -> Self:
        self.check()
        return self

    def write(self, row: CaptionRow) -> None:
        """Write a row whose `image` is a path or an address."""
        if row.captions:
            check_source(row.image)
        self._held.append(row)
        if len(self._held) == SHARD_SIZE:
            self._write_held()

    def write_shard(self, shard: InputShard, rows: Iterable[CaptionRow]) -> None:
        """Write a tar of an input shard, with a row for each of its pictures, in order."""
        name = f"captions-{self._count:05d}.tar"
        if self.existing.mode == "replace" and self._store.not_written([name]):
            self._store.delete(name)  # what takes its place is captune's alone
        publish_tar(self._store, name, rows, shard)
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._held:
            self._write_held()

    def _write_held(self) -> None:
        names = tuple(row.image for row in self._held)
        self.write_shard(InputShard("files", "", self._count * SHARD_SIZE, len(names), names), self._held)
        self._held = []


def check_tars(store: Store) -> None:
    """Raise `CaptuneError` where a tar of results stands in a store that captune did not write."""
    tars = (name for name in store.names() if is_result(name) and name.endswith(".tar"))
    check_written(store, tars, "Take another --out, or overwrite them: --existing replace")
