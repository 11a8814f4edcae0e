"""What all writers share: the protocol, and text that goes to a stream or into a whole file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TextIO, runtime_checkable

from captune.captions.provenance import A_PERSONS
from captune.captions.provenance import COLUMNS as PROVENANCE
from captune.captions.row import CaptionRow, row_of
from captune.captions.structure import PREFIX
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import atomic_file, disk_error, sync_folder
from captune.core.files.existing import ExistingCaptions, Ledger, digest
from captune.core.files.fingerprints import file_digest
from captune.core.records import Caption
from captune.core.text import printable, without_controls

if TYPE_CHECKING:
    from captune.datasets.sources.input_shards import InputShard


class Writer(Protocol):
    """Rows in, one at a time, within a `with` block; files appear when it ends without an error."""

    def __enter__(self) -> Self:
        """Open the output."""

    def write(self, row: CaptionRow) -> None:
        """Write one row."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Finish the output; after an error, leave no half of a file."""


@runtime_checkable
class ShardWriter(Protocol):
    """A writer that needs the images too; it writes one input shard at a time, which may be part of an archive."""

    def write_shard(self, shard: InputShard, rows: Iterable[CaptionRow]) -> None:
        """Write an input shard, with a row for each of its images, in order."""


class FileWriter(ABC):
    """Rows for one file that is whole or absent in the end, joined with what a person wrote in it."""

    suffix = "txt"

    def __init__(self, out: Path | None, existing: ExistingCaptions | None) -> None:
        self.path = None if out is None else output_file(out, self.suffix)
        self.existing = existing or ExistingCaptions()
        self._output = OutputFile()

    @property
    def notes(self) -> list[str]:
        """Remarks for the user at the end."""
        return self.existing.notes

    def values(self) -> Values | None:
        """What reads the rows of such a file; None: they have no names."""
        return row_reader(self.suffix)

    def check(self) -> None:
        """Raise `CaptuneError` where a file stands that could not be joined in the end."""
        if self.path:
            OutputFile().stand(self.path, self.existing, self.values())

    def write(self, row: CaptionRow) -> None:
        self._write(self._output.joined(row))

    @abstractmethod
    def _write(self, row: CaptionRow) -> None: ...

    @abstractmethod
    def _end(self, *, complete: bool) -> None:
        """Write what is left; not `complete`: the file is about to be discarded."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            if kind is None:
                for row in self._output.rest():
                    self._write(row)
            self._end(complete=kind is None)
        except BaseException:
            self._output.discard()
            raise
        self._output.discard() if kind else self._output.publish()


class TextFormatWriter(FileWriter):
    """Writes rows as text; a format says what stands before, for and after them."""

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        super().__init__(out, existing)
        self.stream = stream
        self.rows = 0

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

    def _write(self, row: CaptionRow) -> None:
        text = self.row(row)
        self.rows += 1
        self._put(text)

    def _end(self, *, complete: bool) -> None:
        if complete:
            self._put(self.tail())

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
        if not path.exists() or path.is_file():  # else a pipe, a device, or a folder that the error is about later
            self._standing = ExistingRows(path, existing, values)

    def joined(self, row: CaptionRow) -> CaptionRow:
        """The row that is to stand for an image."""
        return row if self._standing is None else self._standing.joined(row)

    def rest(self) -> Iterator[CaptionRow]:
        """A person's rows of images that were not captioned now."""
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
    from captune.datasets.formats import csv_table, jsonl, parquet

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


class ProtectedFiles:
    """Files of captions without rows that could be joined: `existing` keeps those of a person or replaces them."""

    def __init__(self, existing: ExistingCaptions) -> None:
        self.existing = existing

    def stands(self, path: Path) -> bool:
        """Whether a file is there that captune did not write, or that was changed since, and that is to stay."""
        if self.existing.mode == "replace" or not path.is_file() or not path.stat().st_size:
            return False
        return not self.existing.ledger(path.parent).has(path.name, file_digest(path))

    def check(self, path: Path) -> None:
        """Raise `CaptuneError` where such a file stands, before anything is captioned."""
        if self.stands(path):
            raise CaptuneError(
                f"{path} was not written by captune, or was changed since.",
                "Take another --out, or overwrite it: --existing replace",
            )

    def write(self, path: Path, text: str) -> bool:
        """Write a file; returns whether it was written, and not kept as it was."""
        if self.stands(path):
            self.existing.preserved += 1
            return False
        ours = path.is_file() or not path.exists()  # else a pipe or a device
        with atomic_file(path) as file:
            file.write(text)
            if ours:
                file.flush()
                self.existing.ledger(path.parent).add([digest(path.name, file_digest(Path(file.name)))])
        return True


Values = Callable[[Path], Iterator[Any]]
# What captune writes itself; a column of somebody else would be lost.
_COLUMNS = {"image", "caption", "captions", "confidence", "original", "cut", "status", "error", "flags", "provenance"}
_IN_JSON = {"prompt", "decorative"}  # other formats have no place for them
_COLUMNS |= {*PROVENANCE, "fields"}


@dataclass(frozen=True)
class _ExistingRow:
    """A row as it stands, and those of its captions that are a person's."""

    row: CaptionRow
    own: tuple[Caption, ...]


class ExistingRows:
    """A person's rows in the file `path`, by image; none where captune wrote it as it is.

    `values` reads the rows of such a file (None: they have no names). Raises `CaptuneError` where the file is
    not captune's and its rows cannot be read, or would lose a column.
    """

    def __init__(self, path: Path, existing: ExistingCaptions, values: Values | None) -> None:
        self._path, self._existing = path, existing
        existing.fetch(path)
        self._ledger = existing.ledger(path.parent)
        self._digests: list[str] = []
        self._rows: dict[str, _ExistingRow] = {}
        stands = existing.mode != "replace" and path.is_file() and path.stat().st_size > 0
        if stands and not self._ledger.has(path.name, file_digest(path)):
            self._rows = _standing(path, self._ledger, values)
        self._joined = bool(self._rows)

    def joined(self, row: CaptionRow) -> CaptionRow:
        """The row that is to stand for an image."""
        image = encodable(row.image)
        name = f"{self._path.name}/{image}"
        self._digests += [digest(name, caption.text) for caption in row.captions]
        standing = self._rows.pop(image, None)
        if standing is None:
            return row
        own = {one_line(caption.text): caption for caption in standing.own}
        captions = {one_line(caption.text): caption for caption in row.captions}
        texts = self._existing.joined([*own], [*captions])
        if self._existing.mode == "keep":
            return replace(standing.row, model=row.model)
        joined = tuple({**captions, **own}[text] for text in texts)
        provenance = row.provenance and row.provenance.joined(A_PERSONS)
        return replace(row, captions=joined, status="ok", error=None, provenance=provenance)

    def rest(self) -> Iterator[CaptionRow]:
        """A person's rows of images that were not captioned now."""
        self._existing.preserved += len(self._rows)
        for standing in self._rows.values():
            yield standing.row

    def publishing(self, made: Path) -> None:
        """Note what was written, before the file `made` is moved into its place."""
        # A file with a person's rows in it is never captune's as a whole.
        whole = [] if self._joined else [digest(self._path.name, file_digest(made))]
        self._ledger.add([*self._digests, *whole])


def _is_empty(path: Path) -> bool:
    """Whether a file has nothing in it but, perhaps, the head of one of captune's."""
    with open(path, "rb") as file:
        data = file.read(1000).removeprefix(b"\xef\xbb\xbf").strip()
    return b"".join(data.split()) in (b"", b"[]") or (data.startswith(b"image,caption") and b"\n" not in data)


def _standing(path: Path, ledger: Ledger, values: Values | None) -> dict[str, _ExistingRow]:
    """The rows of a file in which a caption is not captune's."""
    rows: dict[str, CaptionRow] = {}
    columns = _COLUMNS | _IN_JSON if path.suffix in (".json", ".jsonl") else _COLUMNS
    try:
        if values is None:
            raise CaptuneError("its captions have no names.")
        if _is_empty(path):
            return {}
        if next(values(path), None) is None:
            raise CaptuneError("it has no rows of captions.")
        for number, value in enumerate(values(path), start=1):
            names = map(str, value) if isinstance(value, dict) else ()
            other = [name for name in names if name not in columns and not name.startswith(PREFIX)]
            if other:
                raise CaptuneError(f"its column {other[0]!r} would be lost.")
            row = row_of(value, f"row {number}")
            image = encodable(row.image)
            before = rows.get(image)
            rows[image] = row if before is None else before.joined(row)
    except CaptuneError as error:
        what = f"{path} holds more than captune wrote, and cannot be joined: {error.message}"
        raise CaptuneError(what, "Take another --out, or overwrite it: --existing replace") from None
    found: dict[str, _ExistingRow] = {}
    for image, row in rows.items():
        name = f"{path.name}/{image}"
        own = tuple(each for each in row.captions if each.text.strip() and not _is_models(row, name, each, ledger))
        if own:
            provenance = A_PERSONS if row.provenance and len(own) == len(row.captions) else row.provenance
            found[image] = _ExistingRow(replace(row, flags=None, provenance=provenance), own)
    return found


def _is_models(row: CaptionRow, name: str, caption: Caption, ledger: Ledger) -> bool:
    """Whether a model wrote a caption as it stands: its row or the ledger says so, and the row names no person."""
    if row.provenance is None:
        return ledger.has(name, caption.text)
    return row.provenance.wrote(caption.text) or (
        row.provenance.written_by != "person" and ledger.has(name, caption.text)
    )
