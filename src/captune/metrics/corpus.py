"""What every metric gets and gives back: captions and references, a score with its statistics, likelihoods.

A mean over images needs one number an image; BLEU and METEOR need summed counts, because
their corpus score is not a mean (Papineni et al. 2002). Both are rows here, and a row may be
counted several times or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from captune.core.options import MeasureOptions
from captune.core.progress import SILENT, Progress
from captune.metrics.ngrams import DocumentFrequencies, GramCounts, gram_counts
from captune.metrics.ptb_tokenizer import tokenize


@dataclass(frozen=True)
class ReferenceLikelihood:
    """Summed negative log-likelihood (nats) of each image's references, and the number of their tokens, end included.

    `nll` and `tokens` (N,) are in the order of the records.
    """

    nll: np.ndarray
    tokens: np.ndarray

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of a token."""
        return float(self.nll.sum() / max(1, self.tokens.sum()))

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def measured(self) -> MetricResult:
        """Keys `loss` and `perplexity`, corpus and per image, as a metric gives them."""
        rows = np.stack([self.nll, self.tokens], axis=1)
        keys = ("loss", "perplexity")
        per_image = dict(zip(keys, _likelihoods(rows).T, strict=True))
        return MetricResult(
            {"loss": self.loss, "perplexity": self.perplexity}, per_image, {}, Statistics(keys, rows, _likelihoods)
        )


def joined(parts: Sequence[ReferenceLikelihood]) -> ReferenceLikelihood:
    """The whole of shares that took every n-th record."""
    count = sum(len(part.nll) for part in parts)
    nll, tokens = np.zeros(count), np.zeros(count, np.int64)
    for first, part in enumerate(parts):
        nll[first :: len(parts)], tokens[first :: len(parts)] = part.nll, part.tokens
    return ReferenceLikelihood(nll, tokens)


def _likelihoods(sums: np.ndarray) -> np.ndarray:
    """Loss and perplexity (…, 2) from sums (…, 2) of log-likelihoods and tokens."""
    loss = sums[..., 0] / np.maximum(1, sums[..., 1])
    return np.stack([loss, np.exp(np.minimum(loss, 700.0))], axis=-1)


CLIP_MODEL = MeasureOptions().clip_model


@dataclass(frozen=True)
class MetricContext:
    """Every field is optional; a metric that lacks one of its own says so.

    `document_frequencies` are what CIDEr weighs n-grams with (None: those of the
    references). `pictures` are files by image id and `clip_model` the CLIP that looks at
    them, on `device`. `spice_jars` is the folder of SPICE's jars. `training` are the
    captions a model has learned from, as tokens: the others are new.
    """

    document_frequencies: DocumentFrequencies | None = None
    pictures: Mapping[str, str] | None = None
    clip_model: str = CLIP_MODEL
    device: str = "auto"
    spice_jars: str | None = None
    training: frozenset[str] | None = None


def metric_context(options: MeasureOptions, **given: Any) -> MetricContext:
    """The context that options name; `given` are other fields of it."""
    return MetricContext(
        document_frequencies=DocumentFrequencies.find(options.document_frequencies),
        clip_model=options.clip_model,
        spice_jars=options.spice_jars,
        **given,
    )


@dataclass(frozen=True)
class Statistics:
    """Rows (N, K), one an image, that add up to corpus scores by `keys`.

    `score` turns sums of rows (…, K) into scores (…, len(keys)); `score(values.sum(0))` are
    the scores of the whole corpus.
    """

    keys: tuple[str, ...]
    values: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


def mean_statistics(per_image: Mapping[str, Sequence[float] | np.ndarray]) -> Statistics:
    """Statistics of scores whose corpus value is the mean over images."""
    columns = [np.asarray(values, float) for values in per_image.values()]
    rows = np.stack([*columns, np.ones(len(columns[0]))], axis=1)
    return Statistics(tuple(per_image), rows, _means)


def _means(sums: np.ndarray) -> np.ndarray:
    return sums[..., :-1] / sums[..., -1:]


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

    def shared_grams(self, counts: GramCounts) -> tuple[int, np.ndarray, np.ndarray]:
        """N-grams that references share with the caption of their image.

        The rows of `counts` before the returned index are of captions. Of those behind it the mask says which are
        shared, and the last array (one for each True) in which caption row.
        """
        images = len(self.ids)
        split = int(np.searchsorted(counts.sentence, images))
        width = max(1, counts.distinct)
        have = counts.sentence[:split] * width + counts.gram[:split]
        wanted = self.image_of_reference[counts.sentence[split:] - images] * width + counts.gram[split:]
        place = np.searchsorted(have, wanted)
        hit = place < len(have)
        hit[hit] = have[place[hit]] == wanted[hit]
        return split, hit, place[hit]


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
