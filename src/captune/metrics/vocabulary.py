"""How varied captions are: a collapsed model writes the same sentence for every picture."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from captune.metrics.corpus import Corpus


def vocabulary(corpus: Corpus) -> dict[str, Any]:
    """Shares are 0–1, words are tokens.

    `distinct` captions among all, `repeated` captions that stand at another image as well,
    `distinct_1` and `distinct_2`: different words and word pairs among all of them (Li et
    al. 2016), number of different words, mean length, number of empty captions, and `novel`
    captions, which no training reference equals (where the training's are known).
    """
    captions = corpus.sentences[: len(corpus.ids)]
    words = corpus.tokens[: len(corpus.ids)]
    times = Counter(captions)
    singles = Counter(word for caption in words for word in caption)
    pairs = Counter(pair for caption in words for pair in pairwise(caption))
    found = {
        "distinct": len(times) / len(captions),
        "repeated": sum(count for count in times.values() if count > 1) / len(captions),
        "distinct_1": len(singles) / max(1, singles.total()),
        "distinct_2": len(pairs) / max(1, pairs.total()),
        "vocabulary": len(singles),
        "mean_length": singles.total() / len(words),
        "empty": sum(not caption for caption in words),
    }
    if corpus.context.training is not None:
        found["novel"] = sum(caption not in corpus.context.training for caption in captions) / len(captions)
    return found
