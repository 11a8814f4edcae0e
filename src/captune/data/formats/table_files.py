"""Which of several tables in a folder make up the data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats.split_words import split_in


def choose(source: Path, found: Sequence[Path], kind: str) -> list[Path]:
    """The one file, or the files whose names speak of splits (`train.csv`, `val.csv`).

    Raises `CaptuneError` where there is none, or where it is open which one is meant.
    """
    if source.is_file():
        return [source]
    if len(found) <= 1:
        if not found:
            raise CaptuneError(f"There are no {kind} with captions in {source}.", "Name the caption file itself.")
        return list(found)
    by_split = [path for path in found if split_in(path.stem)]
    if by_split and len({split_in(path.stem) for path in by_split}) == len(by_split):
        return by_split
    names = ", ".join(str(path.relative_to(source)) for path in found[:6])
    raise CaptuneError(f"{source} holds several {kind}: {names}.", "Name the one that is meant instead of the folder.")
