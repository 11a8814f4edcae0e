"""Counts of n-grams of many sentences as sorted integer arrays, and in how many images each occurs."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file
from captune.core.files.limits import open_arrays
from captune.metrics.ptb_tokenizer import tokenize

ORDERS = 4
# Stands after the last word where the end of a caption counts as a word; no token is a control character.
END = "\x03"
# What a run calls its training references' own.
FILE = "document_frequencies.npz"
FORMAT = "captune document frequencies 1"


@dataclass(frozen=True)
class DocumentFrequencies:
    """Document frequencies of 1- to 4-grams over a set of images.

    `counts` maps an n-gram (tokens joined by spaces; `END` after the last word of a
    reference is one) to the number of images with it in at least one reference. N-grams of
    a single image are left out: one that nobody wrote counts as written once, so they weigh
    the same. `images` is the number of images, and `name` says which set it was
    ("coco-val"), for reports. Scores made with different frequencies are not comparable.
    """

    counts: Mapping[str, int]
    images: int
    name: str

    @classmethod
    def of(cls, references: Iterable[Sequence[str]], name: str) -> DocumentFrequencies:
        """Count over images, each given by its references as they were written."""
        groups = [[[*tokenize(reference).split(), END] for reference in group] for group in references]
        sentences = list(chain.from_iterable(groups))
        image = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        counts: dict[str, int] = {}
        for found in gram_counts(sentences, ORDERS):
            width = max(1, found.distinct)
            frequency = np.bincount(
                distinct_sorted(image[found.sentence] * width + found.gram) % width, minlength=found.distinct
            )
            for gram in np.flatnonzero(frequency > 1).tolist():
                sentence, at = found.example[gram].tolist()
                counts[" ".join(sentences[sentence][at : at + found.order])] = int(frequency[gram])
        return cls(counts, len(groups), name)

    @classmethod
    def find(cls, name: str) -> DocumentFrequencies | None:
        """Those that an option names: `own` (None: the references measured), a run's, or a saved file's."""
        if name == "own":
            return None
        path = Path(name)
        return cls.load(path / FILE if path.is_dir() else path)

    def of_grams(self, grams: Iterable[str]) -> np.ndarray:
        """How many images have each n-gram, at least 1."""
        return np.fromiter((self.counts.get(gram, 1) for gram in grams), np.int64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a compressed .npz file, at once or not at all."""
        text = "\n".join(self.counts).encode()
        with atomic_file(path, "wb") as file:
            np.savez_compressed(
                file,
                format=np.array(FORMAT),
                name=np.array(self.name),
                images=np.array(self.images),
                grams=np.frombuffer(text, np.uint8),
                counts=np.fromiter(self.counts.values(), np.int64, len(self.counts)),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentFrequencies:
        """Read what `save` wrote; a file that is missing, broken or of another kind raises `CaptuneError`."""
        try:
            with open_arrays(path) as arrays:
                if "format" not in arrays or str(arrays["format"]) != FORMAT:
                    raise ValueError("another kind of file")
                text = arrays["grams"].tobytes().decode()
                counts = dict(zip(text.split("\n") if text else (), arrays["counts"].tolist(), strict=True))
                return cls(counts, int(arrays["images"]), str(arrays["name"]))
        except FileNotFoundError:
            raise CaptuneError(f"There is no file {path}.", "Check the path.") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise CaptuneError(
                f"{path} does not hold document frequencies ({str(error).partition('.')[0]}).",
                "A run has them as document_frequencies.npz; "
                "`captune score --save-document-frequencies FILE` writes those of any references.",
            ) from None


@dataclass(frozen=True)
class GramCounts:
    """How often each n-gram of one order stands in each sentence.

    `sentence`, `gram` and `count` (K,) are sorted by sentence, then gram. Grams are numbered
    0 … `distinct` − 1 without collisions; `example` (distinct, 2) says where each one can be
    read: sentence and first token.
    """

    order: int
    sentence: np.ndarray
    gram: np.ndarray
    count: np.ndarray
    example: np.ndarray

    @property
    def distinct(self) -> int:
        return len(self.example)


def gram_counts(tokens: Sequence[Sequence[str]], orders: int) -> list[GramCounts]:
    """Count the 1- to `orders`-grams of every sentence."""
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    numbers: dict[str, int] = {}
    words = np.fromiter(
        (numbers.setdefault(word, len(numbers)) for sentence in tokens for word in sentence), np.int64, lengths.sum()
    )
    sentence = np.repeat(np.arange(len(tokens)), lengths)
    within = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    left = np.repeat(lengths, lengths) - within  # tokens from here to the end of the sentence
    start = np.arange(len(words))
    gram = words
    found = []
    for order in range(1, orders + 1):
        if order > 1:
            keep = left[start] >= order
            start = start[keep]
            # A pair (shorter gram, next word) is numbered anew, so keys stay far below 2**63.
            pair = gram[keep] * max(1, len(numbers)) + words[start + order - 1]
            _, gram = np.unique(pair, return_inverse=True)
        found.append(_counted(order, sentence[start], gram, within[start]))
    return found


def distinct_sorted(keys: np.ndarray) -> np.ndarray:
    """The distinct values of `keys`, ascending; several times faster than `np.unique`, which hashes."""
    ordered = np.sort(keys)
    return ordered[np.concatenate([ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]])]


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start, start + 1, … for `size` numbers each, one after another."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def _counted(order: int, sentence: np.ndarray, gram: np.ndarray, within: np.ndarray) -> GramCounts:
    distinct = int(gram.max()) + 1 if len(gram) else 0
    example = np.empty((distinct, 2), np.int64)
    example[gram, 0], example[gram, 1] = sentence, within  # any place will do: the last one written stays
    width = max(1, distinct)
    key, count = np.unique(sentence * width + gram, return_counts=True)
    return GramCounts(order, key // width, key % width, count, example)
