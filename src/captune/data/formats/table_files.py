"""Which of several tables in a folder make up the data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.bulk.names import is_result
from captune.data.formats.split_words import split_in


def choose(source: Path, found: Sequence[Path], kind: str) -> list[Path]:
    """The one file, the shards of a job, or the files whose names speak of splits (`train.csv`, `val.csv`).

    Raises `CaptuneError` where there is none, or where it is open which one is meant.
    """
    if source.is_file():
        return [source]
    parts = [path for path in found if is_result(path.name)]
    if parts:  # of very many files only some were looked at
        return sorted(path for path in parts[0].parent.glob(f"captions-*{parts[0].suffix}") if is_result(path.name))
    if len(found) <= 1:
        if not found:
            raise CaptuneError(f"There are no {kind} with captions in {source}.", "Name the caption file itself.")
        return list(found)
    by_split = [path for path in found if split_in(path.stem)]
    if by_split and len({split_in(path.stem) for path in by_split}) == len(by_split):
        return by_split
    names = ", ".join(str(path.relative_to(source)) for path in found[:6])
    raise CaptuneError(f"{source} holds several {kind}: {names}.", "Name the one that is meant instead of the folder.")


def job_format(folder: Path) -> str | None:
    """The format of the shards of captions that a job left in a folder; None of any other."""
    names = os.listdir(folder) if folder.is_dir() else []
    endings = {Path(name).suffix[1:] for name in names if is_result(name)} - {"tar"}
    return endings.pop() if len(endings) == 1 else None
