"""From an alignment to METEOR: weighted precision and recall, less a penalty for many chunks."""

from __future__ import annotations

import math

import numpy as np

from captune.metrics.meteor.align import Alignment, Sentence

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
    for stage, start, length, place, said in alignment.matches:
        function = sum(caption.is_function[place : place + said])
        reference_function = sum(reference.is_function[start : start + length])
        counts = stages[stage]
        counts[0] += said - function
        counts[1] += length - reference_function
        counts[2] += function
        counts[3] += reference_function
        words += said
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
