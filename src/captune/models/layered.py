"""Running a layer of `transformers` with another forward function than its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any


def call_layer(forward: Callable[..., Any], layer: Any, *inputs: Any) -> Any:
    """`forward(layer, *inputs)`; a layer whose weights are shared among processes (FSDP) gathers them meanwhile."""
    if not hasattr(layer, "unshard"):
        return forward(layer, *inputs)
    layer.forward = partial(forward, layer)
    try:
        return layer(*inputs)
    finally:
        del layer.forward
