"""Captions as a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from captune.captions.provenance import COLUMNS, LISTS
from captune.captions.row import CaptionRow, known
from captune.captions.structure import PREFIX
from captune.captions.writers.writer import FileWriter, encodable, needs_output
from captune.core.files import disk_error
from captune.core.files.existing import ExistingCaptions

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 1000
# On a column of texts whose values are JSON.
JSON = {b"captune": b"json"}


class ParquetWriter(FileWriter):
    """Columns `image`, `caption`, `confidence`, `status`, `error`, and `captions` with all of them.

    Rows are held until a group of 1,000 is full.
    """

    suffix = "parquet"
    path: Path

    def __init__(
        self,
        out: Path | None,
        stream: TextIO,
        *,
        existing: ExistingCaptions | None = None,
        provenance: bool = False,
        flags: bool = False,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        if out is None:
            raise needs_output("Parquet", "captions.parquet")
        super().__init__(out, existing)
        self._columns: dict[str, Any] = {"provenance": provenance, "flags": flags, "fields": dict(fields or {})}
        self._pending: list[CaptionRow] = []

    def __enter__(self) -> Self:
        import pyarrow.parquet as pq

        file = self._output.open(self.path, self.existing, self.values(), "wb")
        self._parquet = pq.ParquetWriter(file, schema(**self._columns))
        return self

    def _write(self, row: CaptionRow) -> None:
        self._pending.append(row)
        if len(self._pending) == ROWS_PER_GROUP:
            self._write_group()

    def _end(self, *, complete: bool) -> None:
        if complete:
            self._write_group()
        try:
            self._parquet.close()
        except OSError as failure:
            raise disk_error(failure, self.path) from failure

    def _write_group(self) -> None:
        if self._pending:
            try:
                self._parquet.write_table(table(self._pending, **self._columns))
            except OSError as failure:
                raise disk_error(failure, self.path) from failure
            self._pending.clear()


def schema(*, flags: bool = False, provenance: bool = False, fields: Mapping[str, str] | None = None) -> pa.Schema:
    """The columns; with `flags` those of a job, which looks for them, with `provenance` those of a row's.

    `fields` are names with their kinds, as of a `Structure`.
    """
    import pyarrow as pa

    text = pa.string()
    columns = [("image", text), ("caption", text), ("confidence", pa.float64()), ("status", text), ("error", text)]
    columns += [("captions", pa.list_(pa.struct([("text", text), ("confidence", pa.float64())])))]
    columns += [("flags", pa.list_(text))] if flags else []
    columns += [(name, pa.list_(text) if name in LISTS else text) for name in COLUMNS] if provenance else []
    kinds = {
        "text": text,
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "texts": pa.list_(text),
    }
    described = [
        pa.field(f"{PREFIX}{name}", kinds.get(kind, text), metadata=None if kind in kinds else JSON)
        for name, kind in (fields or {}).items()
    ]
    return pa.schema([*(pa.field(name, kind) for name, kind in columns), *described])


def table(
    rows: Iterable[CaptionRow],
    *,
    flags: bool = False,
    provenance: bool = False,
    fields: Mapping[str, str] | None = None,
) -> pa.Table:
    """Rows as a table; what UTF-8 lacks becomes an escape."""
    import pyarrow as pa

    columns = schema(flags=flags, provenance=provenance, fields=fields)
    return pa.Table.from_pylist([_values(row, fields or {}) for row in rows], schema=columns)


def _values(row: CaptionRow, fields: Mapping[str, str]) -> dict[str, Any]:
    values = {key: encodable(value) if isinstance(value, str) else value for key, value in row.to_json().items()}
    values["captions"] = [{"text": encodable(c.text), "confidence": known(c.confidence)} for c in row.captions]
    if row.provenance is not None:
        values |= dict(zip(COLUMNS, row.provenance.cells(), strict=True))
    known_fields = (row.captions[0].fields if row.captions else None) or {}
    for name, value in known_fields.items():
        if name in fields and value is not None:
            values[f"{PREFIX}{name}"] = _field(value, fields[name])
    return values


def _field(value: Any, kind: str) -> Any:
    if kind == "text":
        return encodable(value)
    if kind == "texts":
        return [None if each is None else encodable(each) for each in value]
    if kind in ("integer", "number", "boolean"):
        return int(value) if kind == "integer" else value
    return json.dumps(value, ensure_ascii=False)
