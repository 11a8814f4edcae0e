"""Hugging Face `datasets`: a folder made by `save_to_disk`, or `hf:org/name[:split]` streamed from the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from captune.core.errors import CaptuneError, first_line, missing_extra
from captune.core.limits import max_rows
from captune.data.formats.columns import Columns, expected, find_columns
from captune.data.formats.embedded import Cell, group_cells
from captune.data.formats.grouping import group
from captune.data.formats.parquet import picture_of
from captune.data.formats.rows import Row
from captune.data.formats.saved_sets import DICT, INFO, STATE, check_saved
from captune.data.formats.split_words import split_named
from captune.data.inside import BESIDE, Boundary, Images
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "Hugging Face `datasets`: a folder made by `save_to_disk`, or `hf:org/name[:split]` from the Hub"
RANK = 90
_SCHEME = "hf:"
T = TypeVar("T")


def sniff(source: Path, images: Path | None = None) -> str | None:
    if str(source).startswith(_SCHEME):
        return f"'{source}' names a data set on the Hub"
    if (source / DICT).is_file():
        return "dataset_dict.json: saved by datasets, one folder for each split"
    if (source / STATE).is_file() and (source / INFO).is_file():
        return "state.json and dataset_info.json: saved by datasets"
    return None


def read(
    source: Path, *, images: Images | None = None, problems: list[Problem] | None = None
) -> Iterator[SourceRecord]:
    on_hub = str(source).startswith(_SCHEME)
    splits = _from_hub(str(source).removeprefix(_SCHEME)) if on_hub else _from_disk(source)
    columns, embedded = _columns(next(iter(splits.values())), source)
    if not embedded:
        return group(_rows(splits, columns, source), source, images, problems)
    images = images or BESIDE
    bases = [*filter(None, [images.folder]), *([] if on_hub else [source])]  # a data set of the Hub names no file here
    cells = _cells(splits, columns, images.boundary(*bases), bases)
    records = group_cells(cells, problems, str(source))
    return explained(records, str(source)) if on_hub else records


def _import() -> Any:
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hub", "Reading Hugging Face data sets") from None
    return datasets


def _from_disk(source: Path) -> dict[str | None, Any]:
    return {split_named(name): validated(data, str(source)) for name, data in saved_splits(source).items()}


def saved_splits(source: Path) -> dict[str, Any]:
    """Saved data sets by split; their pictures stay the bytes they are, since decoding raises in mid-iteration."""
    datasets = _import()
    check_saved(source)
    try:
        loaded = datasets.load_from_disk(str(source))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError) as error:
        raise CaptuneError(
            f"{source}: not a whole data set folder ({first_line(error).rstrip('.')}).",
            "Save it again with save_to_disk.",
        ) from None
    named = list(loaded.items()) if isinstance(loaded, dict) else [(str(loaded.split or ""), loaded)]
    for _, data in named:
        if len(data) > max_rows(sum(os.path.getsize(file["filename"]) for file in data.cache_files)):
            raise CaptuneError(
                f"{source} says it has {len(data):,} rows, far more than its files hold.", "Save it again."
            )
    # As they are stored: what a saved set says of its format may hide columns, or make tensors of them.
    return {name: _undecoded(data.with_format(None), datasets) for name, data in named}


def _from_hub(name: str) -> dict[str | None, Any]:
    return {split_named(split): data for split, data in streamed_splits(name).items()}


def streamed_splits(name: str) -> dict[str, Any]:
    """Data sets of `org/name[:split]` by split, streamed, their pictures as bytes."""
    datasets = _import()
    from huggingface_hub.errors import HfHubHTTPError

    repository, colon, wanted = name.rpartition(":") if ":" in name else (name, "", "")
    try:
        loaded = datasets.load_dataset(repository, streaming=True)
    except datasets.exceptions.DatasetNotFoundError:
        raise CaptuneError(
            f"There is no data set '{repository}' on huggingface.co, or it is private.",
            "Check the name; for a private one log in first: hf auth login",
        ) from None
    except (OSError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        raise _unreachable(repository, error) from None
    except (ValueError, RuntimeError) as error:
        raise CaptuneError(
            f"hf:{repository} cannot be opened: {first_line(error).rstrip('.')}.", "Does its page show a table?"
        ) from None
    if colon and wanted not in loaded:
        raise CaptuneError(f"hf:{repository} has no split '{wanted}'.", f"It has: {', '.join(loaded)}.")
    chosen = {wanted: loaded[wanted]} if colon else dict(loaded)
    return {split: _undecoded(data, datasets) for split, data in chosen.items()}


def explained(records: Iterator[T], source: str) -> Iterator[T]:
    """What a stream yields; a connection that breaks on the way is said in the user's words."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield from records
    except (ConnectionError, HfHubHTTPError) as error:
        raise _unreachable(source.removeprefix(_SCHEME), error) from None


def _unreachable(repository: str, error: Exception) -> CaptuneError:
    return CaptuneError(
        f"hf:{repository} cannot be read: huggingface.co was not reached ({first_line(error).rstrip('.')}).",
        "Check the network (HF_HUB_OFFLINE must not be 1), or point at a folder that is already there.",
    )


def validated(data: Any, source: str) -> Any:
    """A saved data set, once its offsets are known to point into its own file: reading others ends the process.

    Raises `CaptuneError` where they do not.
    """
    import pyarrow as pa

    try:
        data.data.table.validate(full=True)
    except pa.ArrowException as error:
        raise CaptuneError(
            f"{source}: the data set is damaged ({first_line(error).rstrip('.')}).",
            "Copy or save it again, with save_to_disk.",
        ) from None
    return data


def _undecoded(data: Any, datasets: Any) -> Any:
    for column, feature in (data.features or {}).items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
    return data


def column_names(data: Any) -> tuple[list[str], list[str]]:
    """All columns, and those that hold pictures as bytes or Hugging Face's pair of bytes and path."""
    datasets = _import()
    # Without a declared picture column, the pair still shows itself.
    names = list(data.features or data.column_names or next(iter(data), {}))
    pictures = [
        name
        for name, feature in (data.features or {}).items()
        if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)
    ]
    return names, pictures


def _columns(data: Any, source: Path) -> tuple[Columns, bool]:
    names, pictures = column_names(data)
    columns = find_columns(names, image=pictures[0] if pictures else None)
    if columns is None:
        raise CaptuneError(f"{source}: expected {expected()}; found {', '.join(names[:12])}.", "Rename its columns.")
    return columns, bool(pictures)


def _cells(
    splits: dict[str | None, Any], columns: Columns, boundary: Boundary, bases: Sequence[Path]
) -> Iterator[Cell]:
    for split, data in splits.items():
        for number, row in enumerate(data, start=1):
            content, name, bad = picture_of(row[columns.image], boundary, bases or [Path()])
            stated = str(row.get(columns.name) or "") if columns.name else ""
            yield Cell(f"{split or 'data'}, row {number}", content, stated or name, row, split, columns, bad)


def _rows(splits: dict[str | None, Any], columns: Columns, source: Path) -> Iterator[Row]:
    for split, data in splits.items():
        for number, row in enumerate(data, start=1):
            yield columns.row(source / (split or "data"), number, row, split, "row")
