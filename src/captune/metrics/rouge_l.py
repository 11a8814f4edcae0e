"""ROUGE-L with the values of the COCO caption code.

Lin 2004, F-measure of the longest common subsequence with beta 1.2. The best precision and
the best recall may come from different references.
"""

from collections.abc import Sequence

import numpy as np

from captune.metrics.corpus import Corpus, MetricResult, averaged

BETA = 1.2


def rouge_l(corpus: Corpus) -> MetricResult:
    """Key `rouge_l`, 0–1; the corpus score is the mean over images."""
    images = len(corpus.ids)
    # Split at single spaces, as the COCO code does: a caption without tokens counts as one empty token.
    sentences = [sentence.split(" ") for sentence in corpus.sentences]
    each = np.empty(images)
    first = images
    for image, group in enumerate(corpus.references):
        each[image] = _score(sentences[image], sentences[first : first + len(group)])
        first += len(group)
    return averaged({"rouge_l": each})


def _score(hypothesis: list[str], references: Sequence[list[str]]) -> float:
    where: dict[str, int] = {}
    for position, word in enumerate(hypothesis):
        where[word] = where.get(word, 0) | 1 << position
    common = [common_length(where, len(hypothesis), reference) for reference in references]
    precision = max(common) / len(hypothesis)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_length(where: dict[str, int], length: int, other: Sequence[str]) -> int:
    """Length of the longest common subsequence of a sentence and `other`.

    The sentence of `length` words is given as bit masks: bit i of `where[w]` says that word
    i is w. One addition of whole rows a word (Hyyrö 2004) in place of a table of cells.
    """
    full = (1 << length) - 1
    row = full  # a zero bit is a step of the subsequence
    for word in other:
        matches = row & where.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return length - row.bit_count()
