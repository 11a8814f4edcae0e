"""`ArrayOps` by numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from captune.decoding.ops import Array


@dataclass(frozen=True)
class NumpyOps:
    """Arrays in memory. `generator` belongs to one search: draws of other threads do not change it."""

    generator: np.random.Generator = field(default_factory=np.random.default_rng)
    xp: ClassVar[Any] = np

    def array(self, values: Any) -> Array:
        return _narrow(np.array(values))

    def full(self, shape: Sequence[int], value: float) -> Array:
        return _narrow(np.full(tuple(shape), value))

    def gather(self, array: Array, index: Array, axis: int) -> Array:
        return np.take_along_axis(array, index, axis)

    def scatter(self, array: Array, index: Array, values: Array) -> Array:
        changed = array.copy()
        np.put_along_axis(changed, index, values, -1)
        return changed

    def forbid(self, scores: Array, index: Array, condition: Array) -> Array:
        changed, where = scores.copy(), np.nonzero(condition)
        changed[(*where[:-1], index[where])] = -np.inf
        return changed

    def topk(self, scores: Array, k: int) -> tuple[Array, Array]:
        index = np.argpartition(scores, -k, axis=-1)[..., -k:]
        values = np.take_along_axis(scores, index, -1)
        order = np.argsort(-values, axis=-1, kind="stable")
        return np.take_along_axis(values, order, -1), np.take_along_axis(index, order, -1)

    def softmax(self, scores: Array) -> Array:
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def log_softmax(self, scores: Array) -> Array:
        return scores - self.logsumexp(scores)

    def logsumexp(self, scores: Array) -> Array:
        highest = scores.max(-1, keepdims=True)
        return highest + np.log(np.exp(scores - highest).sum(-1, keepdims=True))

    def multinomial(self, scores: Array, k: int) -> Array:
        # Probabilities divided by exponential noise: the highest are draws without replacement, in their order.
        noise = self.generator.standard_exponential(scores.shape, np.float32)
        return self.topk(self.softmax(scores) / np.maximum(noise, np.finfo(np.float32).tiny), k)[1]


def _narrow(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array
