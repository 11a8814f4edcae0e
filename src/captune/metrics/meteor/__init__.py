"""METEOR 1.5 with the values of the COCO caption code (`-l en -norm`), without Java.

Denkowski & Lavie 2014: exact words, stems, synonyms and paraphrases are aligned; weighted
precision and recall, less a penalty for many chunks. Of several references the best counts;
the corpus score comes from summed counts, not from averaged images.
"""

import math

import numpy as np

from captune.metrics.corpus import Corpus, MetricResult, Statistics
from captune.metrics.meteor.align import Alignment, Sentence, align
from captune.metrics.meteor.normalizer import normalize
from captune.metrics.meteor.paraphrases import open_paraphrases

# References whose phrases are looked up at once: some 100 MB.
BLOCK = 25_000


def meteor(corpus: Corpus) -> MetricResult:
    """Key `meteor`, corpus and per image, 0–1.

    Raises `MetricUnavailable` where METEOR's data is not installed. The first use builds an
    index of its paraphrases in the user's cache, which takes about 20 s.
    """
    table = open_paraphrases(corpus.progress)
    tokens = [normalize(text) for text in corpus.sentences]
    images, own = len(corpus.ids), corpus.image_of_reference
    rows = np.empty((len(own), COLUMNS))
    for start in range(0, len(own), BLOCK):
        pairs = [(tokens[own[row]], tokens[images + row]) for row in range(start, min(start + BLOCK, len(own)))]
        distinct = list(dict.fromkeys(words for pair in pairs for words in pair))
        known = dict(zip(distinct, map(Sentence, distinct, table.look_up(distinct)), strict=True))
        for row, (caption, reference) in enumerate(pairs, start):
            hypothesis, wanted = known[caption], known[reference]
            rows[row] = statistics(hypothesis, wanted, align(hypothesis, wanted))
    best = _best(score(rows), corpus.references_per_image)
    chosen = rows[best]
    each = score(chosen)
    sums = _summable(chosen)
    return MetricResult(
        scores={"meteor": float(score(sums.sum(axis=0)))},
        per_image={"meteor": each},
        statistics=Statistics(("meteor",), sums, lambda sums: score(sums)[..., None]),
    )


def _best(scores: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """The row of each image's best reference (N,), the first of equally good ones."""
    first = np.cumsum(per_image) - per_image
    top = np.repeat(np.maximum.reduceat(scores, first), per_image)
    rows = np.where(scores == top, np.arange(len(scores)), len(scores))
    return np.minimum.reduceat(rows, first)


def _summable(rows: np.ndarray) -> np.ndarray:
    """Rows as the corpus score adds them up: a perfect match has no chunk."""
    whole = (rows[:, 21] == rows[:, 0]) & (rows[:, 22] == rows[:, 1]) & (rows[:, 20] == 1)
    sums = rows.copy()
    sums[whole, 20] = 0
    return sums


ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
# What an exact word, a stem, a synonym and a paraphrase are worth.
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
# Columns of statistics: lengths and function words of caption and reference; for each stage the
# content words of caption and reference and the function words of both; chunks; matched words of both.
COLUMNS = 23


def statistics(caption: Sentence, reference: Sentence, alignment: Alignment) -> list[int]:
    """The 23 counts of one alignment."""
    stages = [[0, 0, 0, 0] for _ in WEIGHTS]
    words, reference_words = 0, 0
    for stage, start, length, place, caption_length in alignment.matches:
        function = sum(caption.is_function[place : place + caption_length])
        reference_function = sum(reference.is_function[start : start + length])
        counts = stages[stage]
        counts[0] += caption_length - function
        counts[1] += length - reference_function
        counts[2] += function
        counts[3] += reference_function
        words += caption_length
        reference_words += length
    return [
        len(caption.tokens),
        len(reference.tokens),
        sum(caption.is_function),
        sum(reference.is_function),
        *(count for stage in stages for count in stage),
        alignment.chunks,
        words,
        reference_words,
    ]


def score(rows: np.ndarray) -> np.ndarray:
    """METEOR (…,) of (sums of) statistics (…, 23)."""
    rows = np.asarray(rows, float)
    stages = rows[..., 4:20].reshape(*rows.shape[:-1], 4, 4)
    precision = _share(stages[..., 0], stages[..., 2], rows[..., 0], rows[..., 2])
    recall = _share(stages[..., 1], stages[..., 3], rows[..., 1], rows[..., 3])
    nothing = (precision == 0) | (recall == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        fragments = rows[..., 20] / ((rows[..., 21] + rows[..., 22]) / 2)
    whole = (rows[..., 21] == rows[..., 0]) & (rows[..., 22] == rows[..., 1]) & (rows[..., 20] == 1)
    penalty = np.where(whole, 0.0, GAMMA * _power(np.where(nothing, 0.0, fragments)))
    return np.where(nothing, 0.0, mean * (1 - penalty))


def _power(fragments: np.ndarray) -> np.ndarray:
    """fragments ** BETA by the C library: NumPy's own power differs in the last digit."""
    distinct, place = np.unique(fragments, return_inverse=True)
    return np.array([math.pow(value, BETA) for value in distinct.tolist()])[place].reshape(fragments.shape)


def _share(content: np.ndarray, function: np.ndarray, length: np.ndarray, functions: np.ndarray) -> np.ndarray:
    """Weighted share of the words that are matched; content words count three times as much as function words."""
    # In this order the last digit is right, too.
    matched = (content * WEIGHTS * DELTA).sum(axis=-1) + (function * WEIGHTS * (1 - DELTA)).sum(axis=-1)
    possible = DELTA * (length - functions) + (1 - DELTA) * functions
    return np.divide(matched, possible, out=np.zeros_like(matched), where=possible != 0)
