"""The array operations of the search that torch and numpy spell differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

# A torch tensor or a numpy array. Both have indexing, arithmetic and comparisons, `reshape`, `all`, `any`, `argmax`,
# `cumsum` and `tolist` in common; what they do not have in common is an operation of `ArrayOps`.
Array = Any


class ArrayOps(Protocol):
    """What the search needs of a library of arrays. No operation changes its arguments; "last" is the last axis."""

    def array(self, values: Any) -> Array:
        """Nested numbers as an array, floats in fp32."""
        ...

    def full(self, shape: Sequence[int], value: float) -> Array:
        """An array of one value: bool, int64 or fp32 as the value is."""
        ...

    def broadcast(self, array: Array, shape: Sequence[int]) -> Array: ...

    def concat(self, arrays: Sequence[Array], axis: int) -> Array: ...

    def where(self, condition: Array, x: Array, y: Array) -> Array: ...

    def gather(self, array: Array, index: Array, axis: int) -> Array:
        """Values at `index` along an axis; the other axes broadcast."""
        ...

    def scatter(self, array: Array, index: Array, values: Array) -> Array:
        """A copy with `values` at `index` of the last axis."""
        ...

    def forbid(self, scores: Array, index: Array, condition: Array) -> Array:
        """A copy with -inf at `index` of the last axis where `condition` holds."""
        ...

    def topk(self, scores: Array, k: int) -> tuple[Array, Array]:
        """Values and indices of the `k` highest of the last axis, in falling order."""
        ...

    def argsort(self, scores: Array) -> Array:
        """Indices of the last axis in rising order."""
        ...

    def softmax(self, scores: Array) -> Array: ...

    def log_softmax(self, scores: Array) -> Array: ...

    def logsumexp(self, scores: Array) -> Array:
        """log Σ exp over the last axis, which is kept with length 1."""
        ...

    def multinomial(self, scores: Array, k: int) -> Array:
        """Indices of `k` draws without replacement from the softmax over the last axis."""
        ...
