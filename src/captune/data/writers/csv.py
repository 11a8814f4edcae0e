"""Captions as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import TextFormatWriter

COLUMNS = ("image", "caption", "confidence", "status", "error")


class CsvWriter(TextFormatWriter):
    """A line for each caption with a header; commas, quotes and line breaks are quoted, nothing else is changed.

    A failed picture has one line without caption and confidence.
    """

    suffix = "csv"

    def head(self) -> str:
        return _line(COLUMNS)

    def row(self, row: CaptionRow) -> str:
        if not row.captions:
            return _line((row.image, None, None, row.status, row.error))
        return "".join(_line((row.image, c.text, repr(c.confidence), row.status, row.error)) for c in row.captions)


def _line(values: Iterable[str | None]) -> str:
    text = io.StringIO()
    # With this terminator the writer also quotes a lone carriage return.
    csv.writer(text, lineterminator="\r\n").writerow(["" if value is None else value for value in values])
    return text.getvalue().removesuffix("\r\n") + "\n"
