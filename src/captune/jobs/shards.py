"""Result shards: the rows of an input shard as one file, and back."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from captune.captions.row import CaptionRow, row_of
from captune.captions.structure import PREFIX
from captune.captions.writers.csv import head, lines
from captune.captions.writers.json import dumped
from captune.captions.writers.parquet import schema, table
from captune.core.errors import CaptuneError
from captune.core.files.limits import parse_json
from captune.core.text import unguarded_row

_NAME = re.compile(r"captions-(\d{5,})\.(jsonl|csv|parquet)")


@dataclass(frozen=True)
class ShardFormat:
    """How rows become the bytes of a file and rows again; `has_failures` is quick, and may be wrong in saying yes.

    `encode` takes rows, whether they have columns for their provenance, and their fields with kinds.
    """

    suffix: str
    encode: Callable[..., bytes]
    decode: Callable[[bytes, str], Iterator[CaptionRow]]
    has_failures: Callable[[bytes], bool]


def shard_name(number: int, total: int, suffix: str) -> str:
    """`captions-00000.jsonl`, with as many digits as the last of the job's shards needs."""
    return f"captions-{number:0{max(5, len(str(total - 1)))}d}.{suffix}"


def shard_numbers(names: Sequence[str], suffix: str | None = None) -> list[int]:
    """The numbers of the shards among names, in order; `suffix`: those alone."""
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in matches if match and suffix in (None, match[2]))


def is_shard(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


Fields = Mapping[str, str]
_NO_FIELDS: Fields = {}


def _to_jsonl(rows: Sequence[CaptionRow], provenance: bool = False, fields: Fields = _NO_FIELDS) -> bytes:
    return "".join(dumped(row) + "\n" for row in rows).encode()


def _from_jsonl(data: bytes, name: str) -> Iterator[CaptionRow]:
    for number, text in enumerate(data.decode().split("\n")[:-1], start=1):
        try:
            yield row_of(parse_json(text), f"{name}, line {number}")
        except json.JSONDecodeError as error:
            raise _damaged(name, f"line {number}: {error.msg}") from None


def _to_csv(rows: Sequence[CaptionRow], provenance: bool = False, fields: Fields = _NO_FIELDS) -> bytes:
    names = tuple(fields)
    text = "".join(lines(row, provenance=provenance, fields=names) for row in rows)
    return (head(flags=True, provenance=provenance, fields=names) + text).encode("utf-8", "backslashreplace")


def _from_csv(data: bytes, name: str) -> Iterator[CaptionRow]:
    pending: CaptionRow | None = None
    table = csv.DictReader(io.StringIO(data.decode(), newline=""))
    for number, value in enumerate(map(unguarded_row, table), start=1):
        row = row_of(value, f"{name}, row {number}")
        if pending is not None and pending.image == row.image:  # several captions of one image stand below each other
            pending = pending.joined(row)
            continue
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending


def _to_parquet(rows: Sequence[CaptionRow], provenance: bool = False, fields: Fields = _NO_FIELDS) -> bytes:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table(rows, flags=True, provenance=provenance, fields=fields), file)
    return file.getvalue()


def _from_parquet(data: bytes, name: str) -> Iterator[CaptionRow]:
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowException

    try:
        own = [field for field in pq.read_schema(io.BytesIO(data)) if field.name.startswith(PREFIX)]
        columns = schema(flags=True, provenance=True)
        for field in own:
            columns = columns.append(field)
        rows = pq.read_table(io.BytesIO(data), schema=columns).to_pylist()
    except (OSError, ArrowException) as error:
        raise _damaged(name, str(error)) from None
    for number, value in enumerate(rows, start=1):
        cells = {field: value.pop(field.name) for field in own}
        value["fields"] = {
            field.name.removeprefix(PREFIX): json.loads(cell) if field.metadata else cell
            for field, cell in cells.items()
            if cell is not None
        } or None
        yield row_of(value, f"{name}, row {number}")


def _parquet_failures(data: bytes) -> bool:
    import pyarrow.parquet as pq

    return "error" in pq.read_table(io.BytesIO(data), columns=["status"])["status"].to_pylist()


def _damaged(name: str, why: str) -> CaptuneError:
    return CaptuneError(f"{name} is not as captune wrote it: {why}.", "Delete that shard: it is captioned again.")


SHARD_FORMATS = {
    "jsonl": ShardFormat("jsonl", _to_jsonl, _from_jsonl, lambda data: b'"status": "error"' in data),
    "csv": ShardFormat("csv", _to_csv, _from_csv, lambda data: b",,,error," in data),
    "parquet": ShardFormat("parquet", _to_parquet, _from_parquet, _parquet_failures),
}
# The other formats are written at the end of a job from shards of this one.
PLAIN = SHARD_FORMATS["jsonl"]
