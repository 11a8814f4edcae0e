"""Captions as one JSON list, or as JSON Lines."""

import json

from captune.captions.row import CaptionRow
from captune.captions.writers.writer import TextFormatWriter
from captune.core.text import plain_json


class JsonWriter(TextFormatWriter):
    """A list of the rows of `CaptionRow.to_json`, one per line."""

    suffix = "json"

    def head(self) -> str:
        return "["

    def row(self, row: CaptionRow) -> str:
        return (",\n" if self.rows else "\n") + dumped(row, self.encoding)

    def tail(self) -> str:
        return "\n]\n" if self.rows else "]\n"


class JsonLinesWriter(TextFormatWriter):
    """A row of `CaptionRow.to_json` on each line."""

    suffix = "jsonl"

    def row(self, row: CaptionRow) -> str:
        return dumped(row, self.encoding) + "\n"


def dumped(row: CaptionRow, encoding: str = "utf-8") -> str:
    """JSON in the characters of the output; escapes where it lacks one, so that nothing is lost."""
    text = plain_json(json.dumps(row.to_json(), ensure_ascii=False))
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(row.to_json())
    return text
