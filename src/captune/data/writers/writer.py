"""What all writers share: the protocol, and text that goes to a stream or into a whole file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TextIO, runtime_checkable

from captune.core.errors import UsageError
from captune.core.files import atomic_file, disk_error, sync_folder
from captune.core.printable import printable, without_controls
from captune.data.writers.existing import ExistingCaptions
from captune.data.writers.row import CaptionRow

if TYPE_CHECKING:
    from captune.data.bulk.pieces import InputShard
    from captune.data.writers.standing import ExistingRows, Values


class Writer(Protocol):
    """Rows in, one at a time, within a `with` block; files appear when it ends without an error."""

    def __enter__(self) -> Self:
        """Open the output."""

    def write(self, row: CaptionRow) -> None:
        """Write one row."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the output; after an error, leave no half of a file."""


@runtime_checkable
class ShardWriter(Protocol):
    """A writer that needs the images too; it writes one input shard at a time, which may be part of an archive."""

    def write_shard(self, shard: InputShard, rows: Iterable[CaptionRow]) -> None:
        """Write an input shard, with a row for each of its pictures, in order."""


class TextFormatWriter(ABC):
    """Writes rows as text; a format says what stands before, for and after them."""

    suffix = "txt"

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        self.path = None if out is None else output_file(out, self.suffix)
        self.stream = stream
        self.existing = existing or ExistingCaptions()
        self.rows = 0
        self._output = OutputFile()

    @property
    def notes(self) -> list[str]:
        """What the user should know in the end."""
        return self.existing.notes

    def values(self) -> Values | None:
        """What reads the rows of such a file; None: they cannot be told apart."""
        return row_reader(self.suffix)

    def check(self) -> None:
        """Raise `CaptuneError` where a file stands that could not be joined in the end."""
        if self.path:
            OutputFile().stand(self.path, self.existing, self.values())

    def head(self) -> str:
        return ""

    @abstractmethod
    def row(self, row: CaptionRow) -> str: ...

    def tail(self) -> str:
        return ""

    def encodable(self, text: str) -> str:
        """`text` with what the output's encoding lacks written as a backslash escape."""
        return encodable(text, self.encoding)

    @property
    def encoding(self) -> str:
        return "utf-8" if self.path else getattr(self.stream, "encoding", None) or "utf-8"

    def __enter__(self) -> Self:
        if self.path:
            self._output.open(self.path, self.existing, self.values())
        self._put(self.head())
        return self

    def write(self, row: CaptionRow) -> None:
        self._write(self._output.joined(row))

    def _write(self, row: CaptionRow) -> None:
        text = self.row(row)
        self.rows += 1
        self._put(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for row in self._output.rest():
                    self._write(row)
                self._put(self.tail())
        except BaseException:
            self._output.discard()
            raise
        self._output.discard() if kind else self._output.publish()

    def _put(self, text: str) -> None:
        if self.path:
            self._output.write(self.encodable(text))
        elif text:
            text = printable(text) if self.stream.isatty() else text
            self.stream.write(self.encodable(text))
            self.stream.flush()


class OutputFile:
    """A file of rows that is open across several calls, and whole or absent in the end.

    What a person wrote in a file that stands there is joined with the rows.
    """

    file: IO[Any]
    path: Path

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._standing: ExistingRows | None = None

    def open(self, path: Path, existing: ExistingCaptions, values: Values | None, mode: str = "w") -> IO[Any]:
        self.path = path
        self.stand(path, existing, values)
        self.file = self._stack.enter_context(atomic_file(path, mode, newline=None if "b" in mode else ""))
        return self.file

    def stand(self, path: Path, existing: ExistingCaptions, values: Values | None) -> None:
        """Read what a person wrote in a file that is there; raises `CaptuneError` where it cannot be joined."""
        from captune.data.writers.standing import ExistingRows

        if not path.exists() or path.is_file():  # else a pipe, a device, or a folder that the error is about later
            self._standing = ExistingRows(path, existing, values)

    def joined(self, row: CaptionRow) -> CaptionRow:
        """The row that is to stand for an image."""
        return row if self._standing is None else self._standing.joined(row)

    def rest(self) -> Iterator[CaptionRow]:
        """What a person wrote about images that did not come."""
        return iter(()) if self._standing is None else self._standing.rest()

    def write(self, text: str) -> None:
        try:
            self.file.write(text)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def publish(self) -> None:
        with self._stack:
            if self._standing is not None:
                self.file.flush()
                self._standing.publishing(Path(self.file.name))
        if self._standing is not None:
            sync_folder(self.path.parent)

    def discard(self) -> None:
        # Another exception than the one that ended the block, which may be an OSError
        # that has nothing to do with this file.
        with suppress(_DiscardedError):
            self._stack.__exit__(_DiscardedError, _DiscardedError(), None)


class _DiscardedError(Exception):
    """Ends the writing of a file that is not to appear."""


def row_reader(suffix: str) -> Values | None:
    """What reads the rows of a file of captions with all their columns, by its ending; None where it has no rows."""
    from captune.data.formats import csv_table, jsonl, parquet

    return {"jsonl": jsonl.entries, "json": jsonl.entries, "csv": csv_table.entries, "parquet": parquet.entries}.get(
        suffix
    )


def is_folder(out: Path) -> bool:
    """Whether an output path means a folder: it is one, or its name has no suffix."""
    return out.is_dir() or (not out.suffix and not out.exists())


def output_file(out: Path, suffix: str) -> Path:
    """The file that an output path means."""
    return out / f"captions.{suffix}" if is_folder(out) else out


def encodable(text: str, encoding: str = "utf-8") -> str:
    """`text`, or where `encoding` lacks a character (a file name that is not UTF-8), with escapes."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def one_line(text: str) -> str:
    """A caption without line breaks, tabs and control characters."""
    return without_controls(text)


def needs_output(format: str, example: str) -> UsageError:
    return UsageError(f"{format} is not text and cannot be printed.", f"Give a place for it: --out {example}")
