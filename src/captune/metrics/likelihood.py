"""How likely a model finds references: its loss and perplexity, with what resampling needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from captune.metrics.corpus import MetricResult, Statistics


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
