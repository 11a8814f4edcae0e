"""Hugging Face `datasets`: a folder made by `save_to_disk`, or `hf:org/name[:split]` streamed from the Hub."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captune.core.files.paths import BESIDE, Boundary, Images
from captune.datasets.merge import Problems, SourceRecord
from captune.datasets.sources.hub import (
    DICT,
    HUB,
    INFO,
    STATE,
    column_names,
    hub_errors,
    saved_splits,
    streamed_splits,
    validated,
)
from captune.datasets.tables.columns import Columns, columns_missing, find_columns, normalize_split
from captune.datasets.tables.embedded import EmbeddedRow, embedded_row, group_embedded
from captune.datasets.tables.rows import Row, group

DESCRIPTION = "Hugging Face `datasets`: a folder made by `save_to_disk`, or `hf:org/name[:split]` from the Hub"
RANK = 90


def sniff(source: Path, images: Path | None = None) -> str | None:
    if str(source).startswith(HUB):
        return f"'{source}' names a data set on the Hub"
    if (source / DICT).is_file():
        return "dataset_dict.json: saved by datasets, one folder for each split"
    if (source / STATE).is_file() and (source / INFO).is_file():
        return "state.json and dataset_info.json: saved by datasets"
    return None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    on_hub = str(source).startswith(HUB)
    if on_hub:
        named = streamed_splits(str(source).removeprefix(HUB))
    else:
        named = {name: validated(data, str(source)) for name, data in saved_splits(source).items()}
    splits = {normalize_split(name): data for name, data in named.items()}
    columns, embedded = _columns(next(iter(splits.values())), source)
    if not embedded:
        return group(_rows(splits, columns, source), source, images, problems)
    images = images or BESIDE
    bases = [*filter(None, [images.folder]), *([] if on_hub else [source])]  # a data set of the Hub names no file here
    cells = _cells(splits, columns, images.boundary(*bases), bases)
    records = group_embedded(cells, problems, str(source))
    return hub_errors(records, str(source)) if on_hub else records


def _columns(data: Any, source: Path) -> tuple[Columns, bool]:
    names, images = column_names(data)
    columns = find_columns(names, image=images[0] if images else None)
    if columns is None:
        raise columns_missing(source, names)
    return columns, bool(images)


def _cells(
    splits: dict[str | None, Any], columns: Columns, boundary: Boundary, bases: Sequence[Path]
) -> Iterator[EmbeddedRow]:
    for split, data in splits.items():
        for number, row in enumerate(data, start=1):
            yield embedded_row(f"{split or 'data'}, row {number}", row, split, columns, boundary, bases or [Path()])


def _rows(splits: dict[str | None, Any], columns: Columns, source: Path) -> Iterator[Row]:
    for split, data in splits.items():
        for number, row in enumerate(data, start=1):
            yield columns.row(source / (split or "data"), number, row, split, "row")
