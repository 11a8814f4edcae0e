"""Captions as a Parquet file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from captune.core.files import disk_error
from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import OutputFile, encodable, file_in, needs_file

ROWS_PER_GROUP = 1000


class ParquetWriter:
    """Columns `image`, `caption`, `confidence`, `status`, `error`, and `captions` with all of them.

    Rows are held until a group of 1,000 is full.
    """

    suffix = "parquet"

    def __init__(self, out: Path | None, stream: TextIO) -> None:
        if out is None:
            raise needs_file("Parquet", "captions.parquet")
        self.path = file_in(out, self.suffix)
        self._output = OutputFile()
        self._held: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        caption = pa.struct([("text", pa.string()), ("confidence", pa.float64())])
        self._schema = pa.schema(
            [
                ("image", pa.string()),
                ("caption", pa.string()),
                ("confidence", pa.float64()),
                ("status", pa.string()),
                ("error", pa.string()),
                ("captions", pa.list_(caption)),
            ]
        )
        self._parquet = pq.ParquetWriter(self._output.open(self.path, "wb"), self._schema)
        return self

    def write(self, row: CaptionRow) -> None:
        values = row.to_json()
        values["captions"] = [{"text": encodable(c.text), "confidence": c.confidence} for c in row.captions]
        self._held.append({key: encodable(value) if isinstance(value, str) else value for key, value in values.items()})
        if len(self._held) == ROWS_PER_GROUP:
            self._write_group()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write_group()
            self._parquet.close()
        except BaseException as failure:
            self._output.discard()
            if isinstance(failure, OSError):
                raise disk_error(failure, self.path) from failure
            raise
        self._output.discard() if kind else self._output.publish()

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._held:
            try:
                self._parquet.write_table(pa.Table.from_pylist(self._held, schema=self._schema))
            except OSError as failure:
                raise disk_error(failure, self.path) from failure
            self._held.clear()
