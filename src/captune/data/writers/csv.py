"""Captions as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from captune.data.writers.row import CaptionRow, known
from captune.data.writers.writer import TextFormatWriter

COLUMNS = ("image", "caption", "confidence", "status", "error")


class CsvWriter(TextFormatWriter):
    """A line for each caption with a header; commas, quotes and line breaks are quoted, nothing else is changed.

    A failed picture has one line without caption and confidence.
    """

    suffix = "csv"

    def head(self) -> str:
        return line(COLUMNS)

    def row(self, row: CaptionRow) -> str:
        return lines(row)


def lines(row: CaptionRow) -> str:
    """The lines of a row; where somebody looked for flags they stand behind, with spaces between."""
    behind = (row.status, row.error) if row.flags is None else (row.status, row.error, " ".join(row.flags))
    if not row.captions:
        return line((row.image, None, None, *behind))
    return "".join(line((row.image, c.text, _shown(c.confidence), *behind)) for c in row.captions)


def _shown(confidence: float) -> str | None:
    return None if known(confidence) is None else repr(confidence)


def line(values: Iterable[str | None]) -> str:
    text = io.StringIO()
    # With this terminator the writer also quotes a lone carriage return.
    csv.writer(text, lineterminator="\r\n").writerow(["" if value is None else value for value in values])
    return text.getvalue().removesuffix("\r\n") + "\n"
