"""METEOR 1.5 with the values of the COCO caption code (`-l en -norm`), without Java.

Denkowski & Lavie 2014: exact words, stems, synonyms and paraphrases are aligned; weighted
precision and recall, less a penalty for many chunks. Of several references the best counts;
the corpus score comes from summed counts, not from averaged images.
"""

from __future__ import annotations

import numpy as np

from captune.metrics.corpus import Corpus, Measured
from captune.metrics.meteor.align import Sentence, align
from captune.metrics.meteor.normalizer import normalize
from captune.metrics.meteor.paraphrases import open_paraphrases
from captune.metrics.meteor.score import COLUMNS, score, statistics
from captune.metrics.statistics import Statistics


def meteor(corpus: Corpus) -> Measured:
    """Key `meteor`, corpus and per image, 0–1.

    Raises `MetricUnavailable` where METEOR's data is not installed. The first use builds an
    index of its paraphrases in the user's cache, which takes about 20 s.
    """
    table = open_paraphrases()
    tokens = [normalize(text) for text in corpus.sentences]
    known = {words: Sentence(words) for words in tokens}
    table.find(np.array([n for one in known.values() for here in one.phrases for n in here], np.uint64))
    images = len(corpus.ids)
    own = corpus.image_of_reference
    rows = np.empty((len(own), COLUMNS))
    for row, image in enumerate(own.tolist()):
        caption, reference = known[tokens[image]], known[tokens[images + row]]
        rows[row] = statistics(caption, reference, align(caption, reference, table))
    best = _best(score(rows), corpus.references_per_image)
    chosen = rows[best]
    each = score(chosen)
    sums = _summable(chosen)
    return Measured(
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
