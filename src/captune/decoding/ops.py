"""The array operations of the search that torch and numpy spell differently."""

from collections.abc import Sequence
from typing import Any, Protocol

# A torch tensor or a numpy array. Both have indexing, arithmetic and comparisons, `reshape`, `all`, `any`, `argmax`,
# `cumsum` and `tolist`.
Array = Any


class ArrayOps(Protocol):
    """What the search needs of a library of arrays. No operation changes its arguments; "last" is the last axis."""

    @property
    def xp(self) -> Any:
        """The library itself, for what both spell alike: `where`, `concat`, `broadcast_to`, `argsort`."""
        ...

    def array(self, values: Any) -> Array:
        """Nested numbers as an array, floats in fp32."""
        ...

    def full(self, shape: Sequence[int], value: float) -> Array:
        """An array of one value: bool, int64 or fp32 as the value is."""
        ...

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

    def softmax(self, scores: Array) -> Array: ...

    def log_softmax(self, scores: Array) -> Array: ...

    def logsumexp(self, scores: Array) -> Array:
        """log Σ exp over the last axis, which is kept with length 1."""
        ...

    def multinomial(self, scores: Array, k: int) -> Array:
        """Indices of `k` draws without replacement from the softmax over the last axis."""
        ...
