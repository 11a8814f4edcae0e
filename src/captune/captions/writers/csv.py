"""Captions as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from captune.captions.provenance import COLUMNS as PROVENANCE
from captune.captions.row import CaptionRow, known
from captune.captions.structure import PREFIX, cell_of
from captune.captions.writers.writer import TextFormatWriter
from captune.core.files.existing import ExistingCaptions
from captune.core.records import Caption
from captune.core.text import OF_CAPTUNE, guarded

COLUMNS = OF_CAPTUNE


class CsvWriter(TextFormatWriter):
    """A header, then one line per caption; cells that a spreadsheet would execute (`=…`) begin with an apostrophe.

    Commas, quotes and line breaks are quoted. A failed image has one line without caption and confidence.
    """

    suffix = "csv"

    def __init__(
        self,
        out: Path | None,
        stream: TextIO,
        *,
        existing: ExistingCaptions | None = None,
        provenance: bool = False,
        flags: bool = False,
        fields: Iterable[str] = (),
    ) -> None:
        super().__init__(out, stream, existing=existing)
        self.provenance, self.flags, self.fields = provenance, flags, tuple(fields)

    def head(self) -> str:
        return head(flags=self.flags, provenance=self.provenance, fields=self.fields)

    def row(self, row: CaptionRow) -> str:
        return lines(row, provenance=self.provenance, fields=self.fields)


def head(*, flags: bool, provenance: bool, fields: Iterable[str] = ()) -> str:
    """The header, with a column for flags, those of a provenance and those of fields."""
    behind = [*(["flags"] if flags else []), *(PROVENANCE if provenance else [])]
    return line((*COLUMNS, *behind, *(f"{PREFIX}{name}" for name in fields)))


def lines(row: CaptionRow, *, provenance: bool = False, fields: Sequence[str] = ()) -> str:
    """The lines of a row; flags, where they were looked for, are a column behind, separated by spaces."""
    image, error = guarded(row.image), guarded(row.error or "")
    behind = (row.status, error) if row.flags is None else (row.status, error, " ".join(row.flags))
    if not row.captions:
        return line((image, None, None, *behind, *([None] * (len(PROVENANCE) * provenance + len(fields)))))
    return "".join(
        line(
            (
                image,
                guarded(c.text),
                _shown(c.confidence),
                *behind,
                *(_provenance(row, c) if provenance else []),
                *(_fields(c, fields)),
            )
        )
        for c in row.captions
    )


def _fields(caption: Caption, names: Sequence[str]) -> Iterator[str]:
    """The cells of a caption's fields."""
    known = caption.fields or {}
    for name in names:
        yield guarded(cell_of(known[name])) if name in known else ""


def _provenance(row: CaptionRow, caption: Caption) -> Iterator[str]:
    """The cells of a caption's provenance."""
    known = row.provenance and row.provenance.for_caption(caption)
    for cell in known.cells() if known else [""] * len(PROVENANCE):
        yield guarded("".join(cell))


def _shown(confidence: float) -> str | None:
    return None if known(confidence) is None else repr(confidence)


def line(values: Iterable[str | None]) -> str:
    text = io.StringIO()
    # With this terminator the writer also quotes a lone carriage return.
    csv.writer(text, lineterminator="\r\n").writerow(["" if value is None else value for value in values])
    return text.getvalue().removesuffix("\r\n") + "\n"
