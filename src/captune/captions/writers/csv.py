"""Captions as CSV."""

import csv
import io
from collections.abc import Iterable

from captune.captions.row import CaptionRow, known
from captune.captions.writers.writer import TextFormatWriter
from captune.core.text import OF_CAPTUNE, guarded

COLUMNS = OF_CAPTUNE


class CsvWriter(TextFormatWriter):
    """A header, then one line per caption; cells that a spreadsheet would execute (`=…`) begin with an apostrophe.

    Commas, quotes and line breaks are quoted. A failed image has one line without caption and confidence.
    """

    suffix = "csv"

    def head(self) -> str:
        return line(COLUMNS)

    def row(self, row: CaptionRow) -> str:
        return lines(row)


def lines(row: CaptionRow) -> str:
    """The lines of a row; flags, where they were looked for, are the last column, separated by spaces."""
    image, error = guarded(row.image), guarded(row.error or "")
    behind = (row.status, error) if row.flags is None else (row.status, error, " ".join(row.flags))
    if not row.captions:
        return line((image, None, None, *behind))
    return "".join(line((image, guarded(c.text), _shown(c.confidence), *behind)) for c in row.captions)


def _shown(confidence: float) -> str | None:
    return None if known(confidence) is None else repr(confidence)


def line(values: Iterable[str | None]) -> str:
    text = io.StringIO()
    # With this terminator the writer also quotes a lone carriage return.
    csv.writer(text, lineterminator="\r\n").writerow(["" if value is None else value for value in values])
    return text.getvalue().removesuffix("\r\n") + "\n"
