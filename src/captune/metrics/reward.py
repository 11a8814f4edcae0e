"""CIDEr-D as a reward: many sampled captions a step, against references that are counted once.

For self-critical training (Rennie et al. 2017). With the end of a caption as a word, a
caption that never ends is not paid for the words it repeats.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.metrics.cider import SCALE, SIGMA
from captune.metrics.ngrams import END, ORDERS, DocumentFrequencies, ranges
from captune.metrics.ptb_tokenizer import tokenize

# An n-gram is a pair of numbers, that of its first words and that of its last word, in one.
SHIFT = 31


class CiderReward:
    """CIDEr-D (0–10) of captions against the references of their images.

    `references` are by image; document frequencies are those of all of them, or the ones
    that are given. With `end_token` the end of a sentence counts as a word; without it the
    values equal the metric `cider`.
    """

    def __init__(
        self,
        references: Mapping[Any, Sequence[str]],
        document_frequencies: DocumentFrequencies | None = None,
        *,
        end_token: bool = True,
    ) -> None:
        self._frequencies = document_frequencies or DocumentFrequencies.of(references.values(), "the references")
        self._end = [END] if end_token else []
        self._row = {image: row for row, image in enumerate(references)}
        sentences = [self._words(text) for group in references.values() for text in group]
        self._per_image = np.fromiter(map(len, references.values()), np.int64, len(references))
        self._first = np.cumsum(self._per_image) - self._per_image
        self._lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        self._numbers: dict[str, int] = {}
        for word in chain.from_iterable(sentences):
            self._numbers.setdefault(word, len(self._numbers))
        self._orders = self._count_references(sentences)

    def __call__(
        self, captions: Sequence[str], images: Sequence[Hashable], ended: Sequence[bool] | None = None
    ) -> np.ndarray:
        """Rewards (B,) of `captions`, each of the image beside it in `images`.

        One that has not `ended` was cut off: it has no end to be paid for. Raises `CaptuneError`
        for an image without references.
        """
        unknown = [image for image in images if image not in self._row]
        if unknown:
            raise CaptuneError(f"There are no references of image {unknown[0]!r}.", "Reward images of the split.")
        sentences = [self._words(caption) for caption in captions]
        if ended is not None and self._end:
            sentences = [words if done else words[:-1] for words, done in zip(sentences, ended, strict=True)]
        row = np.fromiter((self._row[image] for image in images), np.int64, len(sentences))
        # Every caption meets each reference of its image: P pairs.
        per_caption = self._per_image[row]
        caption = np.repeat(np.arange(len(sentences)), per_caption)
        reference = ranges(self._first[row], per_caption)
        similar = np.zeros(len(caption))
        for order, found in zip(self._orders, self._grams(sentences), strict=True):
            similar += order.cosines(*found, caption, reference, len(sentences))
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        bigrams = np.maximum(lengths - 1, 0)[caption] - np.maximum(self._lengths - 1, 0)[reference]
        similar *= np.exp(-(bigrams.astype(float) ** 2) / (2 * SIGMA**2))
        return np.bincount(caption, similar, minlength=len(sentences)) / ORDERS / per_caption * SCALE

    def _words(self, text: str) -> list[str]:
        return tokenize(text).split() + self._end

    def _weight(self, grams: list[str]) -> np.ndarray:
        return np.log(float(self._frequencies.images)) - np.log(self._frequencies.of_grams(grams))

    def _count_references(self, sentences: list[list[str]]) -> list[_Order]:
        words, sentence, start, left = self._laid_out(sentences)
        flat = list(chain.from_iterable(sentences))
        gram, orders = words, []
        for order in range(1, ORDERS + 1):
            if order > 1:
                keep = left[start] >= order
                gram, start = gram[keep] << SHIFT | words[start[keep] + order - 1], start[keep]
            keys, first, gram = np.unique(gram, return_index=True, return_inverse=True)
            weights = self._weight([" ".join(flat[at : at + order]) for at in start[first].tolist()])
            orders.append(_Order(keys, weights, sentence[start], gram, len(sentences)))
        return orders

    def _grams(self, sentences: list[list[str]]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each order: the sentence, the number and the weight of every n-gram in the captions."""
        words, sentence, start, left = self._laid_out(sentences)
        flat = list(chain.from_iterable(sentences))
        gram, found = words, []
        for place, order in enumerate(self._orders):
            if place:
                keep = left[start] > place
                gram, start = gram[keep] << SHIFT | words[start[keep] + place], start[keep]
            number, known = order.find(gram)
            weight = np.append(order.weights, 0.0)[np.where(known, number, len(order.weights))]
            if not known.all():
                # Not in any reference: its number is one of this call alone.
                _, where, again = np.unique(gram[~known], return_index=True, return_inverse=True)
                at = start[~known][where].tolist()
                number[~known] = len(order.keys) + again
                weight[~known] = self._weight([" ".join(flat[a : a + place + 1]) for a in at])[again]
            gram = number
            found.append((sentence[start], number, weight))
        return found

    def _laid_out(self, sentences: list[list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of all words in a row, the sentence of each, their places, and the words from each to the end."""
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        numbers = self._numbers
        fresh: dict[str, int] = {}
        words = np.fromiter(
            (
                numbers[word] if word in numbers else fresh.setdefault(word, len(numbers) + len(fresh))
                for word in chain.from_iterable(sentences)
            ),
            np.int64,
            int(lengths.sum()),
        )
        sentence = np.repeat(np.arange(len(sentences)), lengths)
        return words, sentence, np.arange(len(words)), np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))


class _Order:
    """The references' n-grams of one order: their numbers, weights, and every reference's tf-idf vector."""

    def __init__(
        self, keys: np.ndarray, weights: np.ndarray, sentence: np.ndarray, gram: np.ndarray, sentences: int
    ) -> None:
        self.keys, self.weights = keys, weights
        width = max(1, len(keys))
        pair, count = np.unique(sentence * width + gram, return_counts=True)
        owner, self.gram = pair // width, pair % width
        self.value = count * weights[self.gram]
        self.norm = np.sqrt(np.bincount(owner, self.value**2, minlength=sentences))
        self.size = np.bincount(owner, minlength=sentences)
        self.first = np.cumsum(self.size) - self.size

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of n-grams, and whether they are in any reference."""
        place = np.searchsorted(self.keys, keys)
        known = place < len(self.keys)
        known[known] = self.keys[place[known]] == keys[known]
        return place, known

    def cosines(
        self,
        sentence: np.ndarray,
        gram: np.ndarray,
        weight: np.ndarray,
        caption: np.ndarray,
        reference: np.ndarray,
        captions: int,
    ) -> np.ndarray:
        """Clipped similarity of each pair (P,) of a caption and a reference."""
        width = int(gram.max(initial=0)) + 1 + len(self.keys)
        have, place, count = np.unique(sentence * width + gram, return_index=True, return_counts=True)
        weighed = count * weight[place]
        norm = np.sqrt(np.bincount(have // width, weighed**2, minlength=captions))
        entry = ranges(self.first[reference], self.size[reference])
        pair = np.repeat(np.arange(len(reference)), self.size[reference])
        wanted = caption[pair] * width + self.gram[entry]
        at = np.searchsorted(have, wanted)
        at[at == len(have)] = 0
        hit = have[at] == wanted if len(have) else np.zeros(len(wanted), bool)
        reference_value = self.value[entry[hit]]
        dot = np.bincount(
            pair[hit], np.minimum(weighed[at[hit]], reference_value) * reference_value, minlength=len(reference)
        )
        norms = norm[caption] * self.norm[reference]
        return np.divide(dot, norms, out=np.zeros(len(reference)), where=norms != 0)
