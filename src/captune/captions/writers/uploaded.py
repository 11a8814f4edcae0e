"""Captions to an address such as `s3://bucket/captions.csv`: written here, and put there when they are whole."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TextIO

from captune.captions.row import CaptionRow
from captune.core.files import atomic_file, scratch_folder
from captune.core.files.existing import LEDGER, ExistingCaptions
from captune.core.stores import WRITTEN, is_result
from captune.core.stores.local import open_store
from captune.datasets.sources.input_shards import InputShard


class UploadedWriter:
    """Any writer whose files go elsewhere. After an error nothing is put there."""

    def __init__(self, writer: Any, out: str, stream: TextIO, existing: ExistingCaptions) -> None:
        self._writer, self._out, self._stream = writer, out.rstrip("/"), stream
        self._stack = ExitStack()
        self._fetched: dict[Path, bytes] = {}
        self.existing = existing
        existing.fetch = self._fetch

    @property
    def notes(self) -> list[str]:
        """Remarks for the user at the end."""
        return list(getattr(self._open, "notes", ()))

    @property
    def unwritten(self) -> dict[str, str]:
        """The reasons for images whose file could not be written."""
        return dict(getattr(self._open, "unwritten", {}))

    def __enter__(self) -> Self:
        self._folder = self._stack.enter_context(scratch_folder())
        is_file = bool(Path(self._out).suffix)
        self._parent = self._out.rpartition("/")[0] if is_file else self._out
        open_store(self._parent).names()  # an address that cannot be reached is reported before the work
        inner = self._writer(self._folder / self._out.rpartition("/")[2] if is_file else self._folder, self._stream)
        self._inner = ExitStack()
        self._open = self._inner.enter_context(inner)
        return self

    def write(self, row: CaptionRow) -> None:
        self._open.write(row)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        with self._stack:
            self._inner.__exit__(kind, *rest)
            if kind is None:
                self._send()

    def _fetch(self, path: Path) -> None:
        """Download the present file, so that the writer finds it in its folder."""
        if path in self._fetched or path.exists():
            return
        found = open_store(self._parent).find(path.relative_to(self._folder).as_posix())
        self._fetched[path] = b"" if found is None else found
        if found is not None:
            with atomic_file(path, "wb") as file:
                file.write(found)

    def _send(self) -> None:
        """Upload what was written, digests before the files they belong to, and delete it here."""
        store = open_store(self._parent)
        for path in sorted(self._folder.rglob("*"), key=lambda path: (path.name != LEDGER, path)):
            if not path.is_file() or path == self._folder / WRITTEN:
                continue
            name = path.relative_to(self._folder).as_posix()
            if self.existing.mode == "replace" and is_result(name) and store.not_written([name]):
                store.delete(name)  # what takes its place is captune's alone
            if self._fetched.get(path) != path.read_bytes():
                store.publish(name, path)
            if path.name != LEDGER:  # it grows
                path.unlink()


class UploadedShardWriter(UploadedWriter):
    """A writer of whole input shards: each is uploaded as soon as it is written."""

    def write_shard(self, shard: InputShard, rows: Iterable[CaptionRow]) -> None:
        self._open.write_shard(shard, rows)
        self._send()
