"""captune's own prepared folder, so that it can be split anew."""

from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files.paths import Images
from captune.datasets.merge import Problems, SourceRecord
from captune.datasets.prepared import SPLIT_SUFFIX, SPLITS, record_of, splits_written_here
from captune.datasets.tables.columns import normalize_split
from captune.datasets.tables.rows import Row, Side, group, note
from captune.datasets.tables.text import numbered, parse_json

DESCRIPTION = "a folder made by `captune prepare`, to split it again, or a `*_split.jsonl` in it"
RANK = 100


def sniff(source: Path, images: Path | None = None) -> str | None:
    return f"{SPLITS} and *{SPLIT_SUFFIX}: made by captune prepare" if _files(source) else None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    if images is None and splits_written_here(source if source.is_dir() else source.parent):
        images = Images(allow_outside=True)
    return group(rows(source, problems), source, images, problems)


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    paths = _files(source)
    if not paths:
        raise CaptuneError(f"{source} was not made by captune prepare.", "Expected splits.json and train_split.jsonl.")
    if side == "captions":
        raise CaptuneError(f"{source} holds references, not the captions of a model.", "Give it as --references.")
    return _rows(paths, problems, whole=source.is_dir())


def _files(source: Path) -> list[Path]:
    """The splits of a prepared folder, or one of them that was named."""
    if source.is_file():
        return [source] if source.name.endswith(SPLIT_SUFFIX) and (source.parent / SPLITS).is_file() else []
    return sorted(source.glob(f"*{SPLIT_SUFFIX}")) if (source / SPLITS).is_file() else []


def _rows(paths: list[Path], problems: Problems, *, whole: bool) -> Iterator[Row]:
    """References as they are: what stands in this layout is never a list of one sentence's words.

    A split that was named without the others (not `whole`) is to be split anew.
    """
    for path in paths:
        if path.stat().st_size == 0:
            continue  # a split without images
        split = normalize_split(path.name.removesuffix(SPLIT_SUFFIX)) if whole else None
        for number, line in numbered(path):
            try:
                row = record_of(parse_json(line))
            except (ValueError, KeyError, TypeError):
                note(problems, f"{path.name}, line {number}", "expected an object with id, image_path and references")
                continue
            yield Row(path, number, row.image, row.references, split, row.id, question=row.question)
