"""Captions as one JSON list, or as JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import TextFormatWriter, is_folder

ROWS_PER_SHARD = 1000


class JsonWriter(TextFormatWriter):
    """A list of the rows of `CaptionRow.to_json`, one a line."""

    suffix = "json"

    def head(self) -> str:
        return "["

    def row(self, row: CaptionRow) -> str:
        return (",\n" if self.rows else "\n") + dumped(row, self.encoding)

    def tail(self) -> str:
        return "\n]\n" if self.rows else "]\n"


class JsonLinesWriter(TextFormatWriter):
    """A row of `CaptionRow.to_json` on each line; into a folder, shards of 1,000 lines.

    Shards are `captions-00000.jsonl`, `captions-00001.jsonl`, …; each appears when it is
    full. An error keeps the lines written so far, a finished job replaces all shards of
    an earlier one.
    """

    suffix = "jsonl"

    def __init__(self, out: Path | None, stream: TextIO, *, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        super().__init__(out, stream)
        self.folder = out if out is not None and is_folder(out) else None
        self.rows_per_shard = rows_per_shard
        if self.folder is not None:
            self.path = self._shard(0)

    def row(self, row: CaptionRow) -> str:
        return dumped(row, self.encoding) + "\n"

    def write(self, row: CaptionRow) -> None:
        if self.folder is not None and self.rows and self.rows % self.rows_per_shard == 0:
            self._output.publish()
            self.path = self._shard(self.rows // self.rows_per_shard)
            self._output.open(self.path)
        super().write(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder is None:
            super().__exit__(kind, error, trace)
            return
        if kind and not self.rows:
            self._output.discard()
            return
        self._output.publish()
        if kind is None:
            last = max(0, self.rows - 1) // self.rows_per_shard
            for shard in self.folder.glob("captions-[0-9][0-9][0-9][0-9][0-9].jsonl"):
                if int(shard.stem.removeprefix("captions-")) > last:
                    shard.unlink()

    def _shard(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"captions-{number:05d}.jsonl"


def dumped(row: CaptionRow, encoding: str) -> str:
    """JSON in the characters of the output; escapes where it lacks one, so that nothing is lost."""
    text = json.dumps(row.to_json(), ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(row.to_json())
    return text
