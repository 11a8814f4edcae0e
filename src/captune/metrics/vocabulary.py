"""How varied captions are: a collapsed model writes the same sentence for every picture."""

from __future__ import annotations

from typing import Any

from captune.metrics.corpus import Corpus


def vocabulary(corpus: Corpus) -> dict[str, Any]:
    """Share of distinct captions (0–1), number of different words, mean length in tokens."""
    captions = corpus.sentences[: len(corpus.ids)]
    words = corpus.tokens[: len(corpus.ids)]
    return {
        "distinct": len(set(captions)) / len(captions),
        "vocabulary": len({word for caption in words for word in caption}),
        "mean_length": sum(map(len, words)) / len(words),
        "empty": sum(not caption for caption in words),
    }
