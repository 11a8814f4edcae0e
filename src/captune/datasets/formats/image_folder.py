"""Hugging Face's ImageFolder: images beside a `metadata.jsonl` or `metadata.csv`."""

from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.datasets.formats import csv_table, jsonl
from captune.datasets.merge import Problems
from captune.datasets.tables.columns import split_from_name
from captune.datasets.tables.files import folder_levels
from captune.datasets.tables.rows import Row, Side

DESCRIPTION = "image folder with `metadata.jsonl` or `metadata.csv` (`file_name`, `text`), also in `train/`, `test/` …"
RANK = 75
_NAMES = ("metadata.jsonl", "metadata.csv")


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _files(source)
    return f"{paths[0].relative_to(source)} describes the images beside it" if paths else None


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    folder = source if source.is_dir() else source.parent
    paths = _files(folder)
    if not paths:
        raise CaptuneError(f"There is no metadata.jsonl or metadata.csv in {folder}.", f"It holds: {DESCRIPTION}.")
    return _rows(folder, paths, problems, side)


def _files(source: Path) -> list[Path]:
    """The metadata file of each folder that has one: the source, or folders up to two below."""
    if not source.is_dir():
        return []
    for level in folder_levels(source):
        paths = [next((f / name for name in _NAMES if (f / name).is_file()), None) for f in level]
        if any(paths):
            return [path for path in paths if path is not None]
    return []


def _rows(folder: Path, paths: list[Path], problems: Problems, side: Side) -> Iterator[Row]:
    for path in paths:
        below = path.parent.relative_to(folder).as_posix()
        table = jsonl if path.suffix == ".jsonl" else csv_table
        for row in table.rows_of([path], problems, side):
            # The folder belongs to the name: train/1.jpg and test/1.jpg are two images.
            name = row.name.strip() if below == "." else f"{below}/{row.name.strip()}"
            first = name.replace("\\", "/").split("/")[0] if "/" in name else ""
            yield row._replace(name=name if row.name.strip() else "", split=row.split or split_from_name(first))
