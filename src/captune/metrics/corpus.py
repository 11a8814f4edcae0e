"""What every metric gets: captions and references, raw and tokenised, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from captune.core.progress import SILENT, Progress
from captune.metrics.aids import MetricContext
from captune.metrics.ngrams import GramCounts, gram_counts
from captune.metrics.ptb_tokenizer import tokenize
from captune.metrics.statistics import Statistics, mean_statistics

ORDERS = 4


@dataclass(frozen=True)
class Corpus:
    """N images, each with one caption to measure and at least one reference.

    `hypotheses` and `references` are as they were written; tokens and n-gram counts are
    worked out once, when the first metric asks for them. "Sentences" are all N captions
    followed by the references of image 0, 1, …
    """

    ids: tuple[str, ...]
    hypotheses: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    context: MetricContext = field(default_factory=MetricContext)
    progress: Progress = SILENT

    @cached_property
    def references_per_image(self) -> np.ndarray:
        """Number of references of each image (N,)."""
        return np.fromiter(map(len, self.references), np.int64, len(self.references))

    @cached_property
    def image_of_reference(self) -> np.ndarray:
        """Index of the image that each reference belongs to (R,)."""
        return np.repeat(np.arange(len(self.ids)), self.references_per_image)

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Tokens joined by single spaces: N captions, then R references."""
        raw = [*self.hypotheses, *(reference for group in self.references for reference in group)]
        return tuple(map(tokenize, raw))

    @cached_property
    def tokens(self) -> list[list[str]]:
        """Tokens of every sentence."""
        return [sentence.split() for sentence in self.sentences]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens in each sentence (N + R,)."""
        return np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))

    @cached_property
    def grams(self) -> list[GramCounts]:
        """Counts of the 1- to 4-grams of every sentence."""
        return gram_counts(self.tokens, ORDERS)


@dataclass(frozen=True)
class MetricResult:
    """One metric's results: corpus scores, scores per image (N,) by the same keys, settings.

    `statistics` make the corpus scores again from a sample of the images; None where that cannot be done.
    """

    scores: dict[str, float]
    per_image: Mapping[str, Sequence[float] | np.ndarray] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    statistics: Statistics | None = None


def averaged(
    per_image: Mapping[str, Sequence[float] | np.ndarray], settings: dict[str, Any] | None = None
) -> MetricResult:
    """The results of a metric whose corpus score is the mean over images."""
    statistics = mean_statistics(per_image)
    means = statistics.score(statistics.values.sum(axis=0))
    scores = {key: float(mean) for key, mean in zip(per_image, means, strict=True)}
    return MetricResult(scores, per_image, settings or {}, statistics)


Metric = Callable[[Corpus], MetricResult]
