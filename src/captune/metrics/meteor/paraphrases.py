"""The paraphrase table as an index on disk: built once, opened in milliseconds, shared by processes.

A phrase is known by a 64-bit number made of its words. The index is a folder of three
arrays: phrases that have paraphrases, where those of each begin, and the paraphrases in the
table's order.
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files import cache_folder, disk_error
from captune.core.progress import SILENT, Progress
from captune.metrics.meteor.data import PARAPHRASES, folder

LONGEST = 7
_FACTOR = 0x9E3779B97F4A7C15
_LINES = 300_000
_ARRAYS = ("sources", "offsets", "targets")


@lru_cache(maxsize=1 << 18)
def word_number(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def phrase_numbers(tokens: Sequence[str]) -> list[list[int]]:
    """Numbers of the phrases of 1 to 7 words that begin at each token."""
    words = [word_number(token) for token in tokens]
    found = []
    for start in range(len(words)):
        number, here = 0, []
        for word in words[start : start + LONGEST]:
            number = (number * _FACTOR + word) & 0xFFFFFFFFFFFFFFFF
            here.append(number)
        found.append(here)
    return found


class Paraphrases:
    """The opened index."""

    def __init__(self, sources: np.ndarray, offsets: np.ndarray, targets: np.ndarray) -> None:
        self.sources, self.offsets, self.targets = sources, offsets, targets
        self._known: dict[int, dict[int, int]] = {}

    def find(self, numbers: np.ndarray) -> None:
        """Look phrases (uint64) up all at once, so that `of` answers at once."""
        fresh = np.unique(numbers)
        place = np.searchsorted(self.sources, fresh)
        place[place == len(self.sources)] = 0
        hit = self.sources[place] == fresh
        for number, at in zip(fresh[hit].tolist(), place[hit].tolist(), strict=True):
            if number not in self._known:
                targets = self.targets[self.offsets[at] : self.offsets[at + 1]].tolist()
                self._known[number] = {target: rank for rank, target in reversed(list(enumerate(targets)))}

    def of(self, number: int) -> dict[int, int] | None:
        """Paraphrases of a phrase that was looked up: their numbers, with their places in the table."""
        return self._known.get(number)


@cache
def open_paraphrases() -> Paraphrases:
    """The index, built before if that was not done yet."""
    return Paraphrases(*_opened(build_index()))


def build_index(progress: Progress = SILENT) -> Path:
    """The folder of the index in the user's cache; it is built where it is not there or broken (about 20 s).

    Several processes may build at once: the first to finish is taken by all.
    """
    table = folder() / PARAPHRASES
    with table.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        check, size = struct.unpack("<II", file.read(8))
    home = cache_folder() / "meteor"
    index = home / f"paraphrases-1-{check:08x}-{size}"
    if index.is_dir():
        try:
            _opened(index)
            return index
        except (OSError, ValueError):
            shutil.rmtree(index, ignore_errors=True)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix="building-", ignore_cleanup_errors=True) as made:
            _build(table, size, Path(made), progress)
            if not index.is_dir():
                Path(made).rename(index)
    except OSError as error:
        if index.is_dir():  # another process was faster
            return index
        raise disk_error(error, home) from error
    return index


def _opened(index: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sources, offsets, targets = (np.load(index / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
    if len(offsets) != len(sources) + 1 or offsets[-1] != len(targets):
        raise ValueError("the arrays do not belong together")
    return sources, offsets, targets


def _build(table: Path, size: int, index: Path, progress: Progress) -> None:
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    with progress.task("Indexing METEOR's paraphrases (once), MB", round(size / 1e6)) as task:
        for lines in _read(table):
            for side, line in zip(sides, (1, 2), strict=True):
                side.append(_numbers([text.rstrip("\n") for text in lines[line::3]]))
            task.advance(sum(map(len, lines)) / 1e6)
    source, target = np.concatenate(sides[0]), np.concatenate(sides[1])
    order = np.argsort(source, kind="stable")  # of one phrase, the table's order stays
    sources, first = np.unique(source[order], return_index=True)
    np.save(index / "sources.npy", sources)
    np.save(index / "offsets.npy", np.append(first, len(source)))
    np.save(index / "targets.npy", target[order])


def _read(table: Path) -> Iterator[list[str]]:
    """Three lines a paraphrase: its probability, a phrase, and what else can be said."""
    try:
        with gzip.open(table, "rt", encoding="utf-8") as file:
            while lines := list(islice(file, 3 * _LINES)):
                if len(lines) % 3:
                    raise EOFError("the last paraphrase is not whole")
                yield lines
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CaptuneError(
            f"{table} cannot be read ({error}).", "Install it again: pip install --force-reinstall pycocoevalcap"
        ) from None


def _numbers(phrases: list[str]) -> np.ndarray:
    split = [phrase.split() for phrase in phrases]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    words = np.fromiter((word_number(word) for phrase in split for word in phrase), np.uint64, lengths.sum())
    first = np.cumsum(lengths) - lengths
    numbers = np.zeros(len(split), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        longer = lengths > place
        numbers[longer] = numbers[longer] * np.uint64(_FACTOR) + words[first[longer] + place]
    return numbers
