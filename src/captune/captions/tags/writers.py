"""Keywords out: a table on the terminal or in a file, text files beside images, or the images' own keywords."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TextIO

from captune.captions.row import CaptionRow
from captune.captions.tags.row import TagRow
from captune.captions.writers.alt_text import AltTextWriter
from captune.captions.writers.csv import line as csv_line
from captune.captions.writers.sidecar import SidecarWriter
from captune.captions.writers.writer import ProtectedFiles, encodable, one_line, output_file
from captune.core.errors import UsageError
from captune.core.files.existing import ExistingCaptions, Mode, keywords_in, split_keywords
from captune.core.stores.files import is_remote
from captune.core.text import encoding_of, guarded, plain_json, printable
from captune.images.metadata.files import Edit
from captune.images.metadata.keywords import KeywordEdit, comparable, unique

BETWEEN = ", "


class TagTable:
    """Rows as text, each as soon as it is there on a stream; a file appears when the block ends without an error."""

    notes: tuple[str, ...] = ()

    def __init__(self, format: str, out: Path | None, stream: TextIO, existing: ExistingCaptions) -> None:
        self._format, self._stream = format, stream
        self._text, (self._head, self._tail) = _TABLES[format]
        suffix = "txt" if format == "text" else format
        self._path = None if out is None else output_file(out, suffix)
        self._files = ProtectedFiles(existing)
        self._rows = 0
        self._parts: list[str] = []
        if self._path is not None:
            self._files.check(self._path)

    def __enter__(self) -> Self:
        self._put(self._head)
        return self

    def write(self, row: TagRow) -> None:
        between = "" if self._format != "json" else ",\n" if self._rows else "\n"
        self._rows += 1
        self._put(between + self._text(row))

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is None:
            self._put(self._tail)
            if self._path is not None:
                self._files.write(self._path, "".join(self._parts))

    def _put(self, text: str) -> None:
        if self._path is not None:
            self._parts.append(encodable(text))
        elif text:
            text = printable(text) if self._stream.isatty() else text
            self._stream.write(encodable(text, getattr(self._stream, "encoding", None) or "utf-8"))
            self._stream.flush()


def _plain(row: TagRow) -> str:
    if row.status == "error":
        return f"{one_line(row.image)}\t\t{one_line(row.error or '')}\n"
    return f"{one_line(row.image)}\t{BETWEEN.join(keyword.text for keyword in row.keywords)}\n"


def _csv(row: TagRow) -> str:
    """A line for each keyword; one without for an image that has none."""
    image, error = guarded(row.image), guarded(row.error or "")
    found: list[tuple[str | None, float | None]] = [(guarded(each.text), each.probability) for each in row.keywords]
    return "".join(
        csv_line((image, text, None if chance is None else repr(chance), row.status, error))
        for text, chance in found or [(None, None)]
    )


def _json(row: TagRow) -> str:
    return plain_json(json.dumps(row.to_json(), ensure_ascii=False))


# How a row is written, and what stands before and behind all rows.
_TABLES: dict[str, tuple[Callable[[TagRow], str], tuple[str, str]]] = {
    "text": (_plain, ("", "")),
    "json": (_json, ("[", "\n]\n")),
    "jsonl": (lambda row: _json(row) + "\n", ("", "")),
    "csv": (_csv, (csv_line(("image", "keyword", "probability", "status", "error")), "")),
}


class TagSidecarWriter(SidecarWriter):
    """`photo.txt` beside `photo.jpg` with keywords between commas, where trainers look for them.

    Keywords and lines that captune's tags did not put there stay as they are; those it did are replaced.
    """

    def skips(self, row: CaptionRow) -> bool:
        return row.status != "ok"

    def ledger_name(self, path: Path) -> str:
        return keywords_in(path.name)

    def note(self, path: Path, captions: list[str], *, alone: bool) -> None:
        """Those that a person wrote as well are not captune's; `joined_text` knows which."""

    def joined_text(self, path: Path, before: bytes, captions: list[str]) -> bytes | None:
        encoding = encoding_of(before)
        others, _ = split_keywords(before.decode(encoding), self.existing.ledger(path.parent), path.name)
        words = [part.strip() for line in others for part in line.split(",") if part.strip()]
        if self.existing.mode == "replace":
            others, words = [], []
        standing = {comparable(word) for word in words}
        new = [each for each in unique(map(one_line, captions)) if comparable(each) not in standing]
        if words and self.existing.mode == "keep":
            self.existing.preserved += bool(new)
            return None
        super().note(path, [part for each in new for part in each.split(",") if part.strip()], alone=True)
        if not words:
            return f"{BETWEEN.join(new)}\n".encode() if new else b""
        text = self._with_new(others, BETWEEN.join(new)) if new else "".join(others)
        return encodable(text, encoding).encode(encoding)

    def _with_new(self, lines: list[str], new: str) -> str:
        """New keywords in a file of one line behind or before what it has; beside several, on a line of their own."""
        append = self.existing.mode == "append"
        body = lines[0].rstrip("\r\n")
        end = lines[0][len(body) :] or "\n"
        if len(lines) == 1:
            rest = body.strip().strip(",").rstrip()
            return f"{rest}{BETWEEN}{new}{end}" if append else f"{new}{BETWEEN}{rest}{end}"
        text = "".join(lines)
        if not append:
            return f"{new}{end}{text}"
        return f"{text}{'' if text.endswith(end) else end}{new}{end}"


class TagFieldWriter(AltTextWriter):
    """Copies of the images with their keywords in XMP, and in IPTC and EXIF where they have some; or the files."""

    what = "keywords"

    def skips(self, row: CaptionRow) -> bool:
        return row.status != "ok"

    def edit(self, row: CaptionRow) -> Edit:
        return KeywordEdit([one_line(caption.text) for caption in row.captions], self.existing)


class _PerImage:
    """A writer of files for images, given rows of keywords."""

    def __init__(self, files: TagSidecarWriter | TagFieldWriter) -> None:
        self._files = files

    @property
    def notes(self) -> list[str]:
        return self._files.notes

    @property
    def unwritten(self) -> dict[str, str]:
        return self._files.unwritten

    def __enter__(self) -> Self:
        self._files.__enter__()
        return self

    def write(self, row: TagRow) -> None:
        self._files.write(row.to_captions())

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)


def open_tag_writer(
    format: str, out: str | None, stream: TextIO, *, in_place: bool = False, existing: Mode = "append"
) -> TagTable | _PerImage:
    """A writer of rows of keywords, to be used in a `with` block; raises `UsageError` where it has no place to write.

    `out` is a file (a folder for `sidecar` and `xmp`), None or `-` the stream. `unwritten` of what writes a file for
    each image has the reasons for those that could not be written.
    """
    if out is not None and is_remote(out):
        raise UsageError(f"{out}: keywords are written on this machine.", "Give a file or a folder, and copy it there.")
    if in_place and format != "xmp":
        raise UsageError("--in-place goes with --format xmp alone.", "Add --format xmp, or leave it out.")
    path = None if out in (None, "-") else Path(str(out))
    standing = ExistingCaptions(existing, what="lists of keywords")
    if format == "sidecar":
        return _PerImage(TagSidecarWriter(path, stream, existing=standing))
    if format == "xmp":
        return _PerImage(TagFieldWriter(path, stream, in_place=in_place, existing=standing))
    return TagTable(format, path, stream, standing)
