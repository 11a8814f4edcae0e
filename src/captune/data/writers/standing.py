"""The rows of a captions file that captune is about to write again: those of a person go in as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.data.writers.existing import ExistingCaptions, Ledger, digest, digest_of_file
from captune.data.writers.row import CaptionRow, row_of
from captune.data.writers.writer import one_line

Values = Callable[[Path], Iterator[Any]]
# What captune writes itself; a column of somebody else would be lost.
_COLUMNS = {"image", "caption", "captions", "confidence", "original", "status", "error", "flags"}


@dataclass(frozen=True)
class _ExistingRow:
    """A row as it stands, and those of its captions that are a person's."""

    row: CaptionRow
    words: tuple[Caption, ...]


class ExistingRows:
    """A person's rows in the file `path`, by image; none where captune wrote it as it is.

    `values` reads the rows of such a file (None: they cannot be told apart). Raises `CaptuneError` where the file is
    not captune's and its rows cannot be read, or would lose a column.
    """

    def __init__(self, path: Path, existing: ExistingCaptions, values: Values | None) -> None:
        self._path, self._existing = path, existing
        existing.fetch(path)
        self._ledger = existing.ledger(path.parent)
        self._digests: list[str] = []
        self._rows: dict[str, _ExistingRow] = {}
        stands = existing.mode != "replace" and path.is_file() and path.stat().st_size > 0
        if stands and not self._ledger.has(path.name, digest_of_file(path)):
            self._rows = _standing(path, self._ledger, values)
        self._joined = bool(self._rows)

    def joined(self, row: CaptionRow) -> CaptionRow:
        """The row that is to stand for an image."""
        name = f"{self._path.name}/{row.image}"
        self._digests += [digest(name, caption.text) for caption in row.captions]
        standing = self._rows.pop(row.image, None)
        if standing is None:
            return row
        words, captions = (
            {one_line(caption.text): caption for caption in each} for each in (standing.words, row.captions)
        )
        texts = self._existing.joined([*words], [*captions])
        if self._existing.mode == "keep":
            return replace(standing.row, model=row.model)
        return replace(row, captions=tuple({**captions, **words}[text] for text in texts), status="ok", error=None)

    def rest(self) -> Iterator[CaptionRow]:
        """A person's rows of images that did not come."""
        self._existing.preserved += len(self._rows)
        for standing in self._rows.values():
            yield standing.row

    def publishing(self, made: Path) -> None:
        """Note what was written, before the file `made` is moved into its place."""
        # A file with a person's rows in it is never captune's as a whole.
        whole = [] if self._joined else [digest(self._path.name, digest_of_file(made))]
        self._ledger.add([*self._digests, *whole])


def _is_empty(path: Path) -> bool:
    """Whether a file has nothing in it but, perhaps, the head of one of captune's."""
    with open(path, "rb") as file:
        data = file.read(1000).removeprefix(b"\xef\xbb\xbf").strip()
    return b"".join(data.split()) in (b"", b"[]") or (data.startswith(b"image,caption") and b"\n" not in data)


def _standing(path: Path, ledger: Ledger, values: Values | None) -> dict[str, _ExistingRow]:
    """The rows of a file in which a caption is not captune's."""
    hint = "Take another --out, or overwrite it: --existing replace"
    rows: dict[str, CaptionRow] = {}
    try:
        if values is None:
            raise CaptuneError("its captions have no names.")
        if _is_empty(path):
            return {}
        if next(values(path), None) is None:
            raise CaptuneError("it has no rows of captions.")
        for number, value in enumerate(values(path), start=1):
            other = [str(name) for name in value if name not in _COLUMNS] if isinstance(value, dict) else []
            if other:
                raise CaptuneError(f"its column {other[0]!r} would be lost.")
            row = row_of(value, f"row {number}")
            before = rows.get(row.image)
            rows[row.image] = row if before is None else replace(row, captions=before.captions + row.captions)
    except CaptuneError as error:
        raise CaptuneError(
            f"{path} holds more than captune wrote, and cannot be joined: {error.message}", hint
        ) from None
    found: dict[str, _ExistingRow] = {}
    for image, row in rows.items():
        name = f"{path.name}/{image}"
        words = tuple(each for each in row.captions if each.text.strip() and not ledger.has(name, each.text))
        if words:
            found[image] = _ExistingRow(replace(row, flags=None), words)
    return found
