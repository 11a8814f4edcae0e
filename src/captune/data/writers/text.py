"""Captions as lines of text."""

from __future__ import annotations

from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import TextFormatWriter, one_line

_ESCAPES = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}


class TextWriter(TextFormatWriter):
    """`image<TAB>caption`, a line for each caption; a failed picture has `image<TAB><TAB>error`.

    Line breaks and tabs become spaces in captions and escapes (`\\n`) in file names.
    """

    def row(self, row: CaptionRow) -> str:
        # A backslash stays as it is unless something was escaped beside it.
        name = row.image.translate(_ESCAPES) if any(mark in row.image for mark in "\t\n\r") else row.image
        if row.status == "error":
            return f"{name}\t\t{one_line(row.error or '')}\n"
        return "".join(f"{name}\t{one_line(caption.text)}\n" for caption in row.captions)


class PlainTextWriter(TextFormatWriter):
    """The best caption of each picture alone, one line a picture in the order given.

    A failed picture has an empty line, so that lines and pictures stay in step.
    """

    def row(self, row: CaptionRow) -> str:
        return f"{one_line(row.captions[0].text) if row.captions else ''}\n"
