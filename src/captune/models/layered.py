"""Running a layer another way than its own, with what hangs on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def run(way: Callable[..., Any], layer: Any, *inputs: Any) -> Any:
    """`way(layer, *inputs)`; a layer whose weights are shared among processes (FSDP) gathers them meanwhile."""
    if not hasattr(layer, "unshard"):
        return way(layer, *inputs)
    layer.forward = partial(way, layer)
    try:
        return layer(*inputs)
    finally:
        del layer.forward
