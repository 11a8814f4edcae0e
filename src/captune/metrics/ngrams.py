"""N-gram counts of many sentences at once, as sorted integer arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def _counted(order: int, sentence: np.ndarray, gram: np.ndarray, within: np.ndarray) -> GramCounts:
    distinct = int(gram.max()) + 1 if len(gram) else 0
    example = np.empty((distinct, 2), np.int64)
    example[gram, 0], example[gram, 1] = sentence, within  # any place will do: the last one written stays
    width = max(1, distinct)
    key, count = np.unique(sentence * width + gram, return_counts=True)
    return GramCounts(order, key // width, key % width, count, example)
