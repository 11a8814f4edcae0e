"""The paraphrase table as an index on disk: built once, opened in milliseconds, shared by processes.

A phrase is known by a 64-bit number made of its words. The index is a folder of three
arrays: phrases that have paraphrases, where those of each begin, and the paraphrases in the
table's order.
"""

import gzip
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files import cache_folder, disk_error, scratch_folder
from captune.core.progress import SILENT, Progress
from captune.metrics.meteor.data import PARAPHRASES, folder
from captune.metrics.ngrams import ranges

LONGEST = 7
_FACTOR = 0x9E3779B97F4A7C15
_LINES = 300_000
_ARRAYS = ("sources", "offsets", "targets")


@lru_cache(maxsize=1 << 18)
def word_number(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Phrases:
    """What a sentence says that stands in the table.

    `sources`: start, length and paraphrases (their numbers, with their places in the table) of
    each phrase that has some, by start and length; `places`: start and length of each phrase
    that may be a paraphrase of another sentence's, by number.
    """

    sources: list[tuple[int, int, dict[int, int]]]
    places: dict[int, list[tuple[int, int]]]


class Paraphrases:
    """The opened index."""

    def __init__(self, sources: np.ndarray, offsets: np.ndarray, targets: np.ndarray) -> None:
        self.sources, self.offsets, self.targets = sources, offsets, targets

    def look_up(self, sentences: Sequence[Sequence[str]]) -> list[Phrases]:
        """The phrases of sentences, which may be paraphrases of one another, but of no other sentence's."""
        sentence, start, length, number = _phrases(sentences)
        distinct, place = np.unique(number, return_inverse=True)
        at = np.searchsorted(self.sources, distinct)
        at[at == len(self.sources)] = 0
        has = self.sources[at] == distinct
        # All paraphrases of all these phrases in a row; those that no sentence here says need not be looked for.
        row = at[has]
        sizes = self.offsets[row + 1] - self.offsets[row]
        entry = ranges(self.offsets[row], sizes)
        targets = self.targets[entry]
        where = np.searchsorted(distinct, targets)
        where[where == len(distinct)] = 0
        same = distinct[where] == targets
        is_target = np.zeros(len(distinct), bool)
        is_target[where[same]] = True
        known: dict[int, dict[int, int]] = {}
        owner = np.repeat(np.flatnonzero(has), sizes)[same]
        for source, target, rank in zip(owner.tolist(), targets[same].tolist(), entry[same].tolist(), strict=True):
            known.setdefault(source, {}).setdefault(target, rank)
        found = [Phrases([], {}) for _ in sentences]
        wanted = np.zeros(len(distinct), bool)
        wanted[list(known)] = True
        for index in np.flatnonzero(wanted[place]).tolist():
            one = found[sentence[index]]
            one.sources.append((int(start[index]), int(length[index]), known[int(place[index])]))
        for index in np.flatnonzero(is_target[place]).tolist():
            places = found[sentence[index]].places
            places.setdefault(int(number[index]), []).append((int(start[index]), int(length[index])))
        return found


def _phrases(sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sentence, start, length and number of every phrase of 1 to 7 words, by sentence, start and length."""
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    words = np.fromiter((word_number(word) for words in sentences for word in words), np.uint64, lengths.sum())
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    first = np.cumsum(lengths) - lengths
    within = np.arange(len(words)) - first[sentence]
    left = lengths[sentence] - within
    at, number = np.arange(len(words)), np.zeros(len(words), np.uint64)
    parts = []
    for length in range(1, LONGEST + 1):
        keep = left[at] >= length
        at = at[keep]
        number = number[keep] * np.uint64(_FACTOR) + words[at + length - 1]
        parts.append((at, np.full(len(at), length), number))
    places, sizes, numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(places, kind="stable")  # by start, then by length
    places = places[order]
    return sentence[places], within[places], sizes[order], numbers[order]


def open_paraphrases(progress: Progress = SILENT) -> Paraphrases:
    """The index, built before if that was not done yet."""
    return Paraphrases(*_opened(build_index(progress)))


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
        with scratch_folder(home) as made:
            _build(table, size, made, progress)
            if not index.is_dir():
                made.rename(index)
    except OSError as error:
        if index.is_dir():  # another process was faster
            return index
        raise disk_error(error, home) from error
    return index


def _opened(index: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sources, offsets, targets = (np.load(index / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
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
