"""A finished caption read once more, to see what was likely at each step and where the model looked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from captune.models.stepper import Stepper, causal_mask
from captune.models.text_stack import TextStack

# Class tokens and registers that a vision transformer puts before its patches.
MOST_BEFORE_PATCHES = 5
_SWITCHING = Lock()


@dataclass(frozen=True)
class Reread:
    """What a model makes of a finished caption, step by step; step n reads token n and chooses token n + 1.

    `logits` (steps, vocabulary) score the token behind each step. `attention` (steps, places), fp32, is how each
    step's attention falls on the places of the memory, averaged over heads and layers; None where a family has
    no such attention. Its rows sum to 1 at most: the rest fell on words.
    """

    logits: Tensor
    attention: Tensor | None


def reread(stepper: Stepper, memory: Tensor, tokens: Sequence[int]) -> Reread:
    """`tokens`, start and prompt included, over the memory (1, places, width) of their picture."""
    read = torch.tensor([list(tokens)], device=memory.device)
    steps = read.shape[1]
    said = stepper.room(1, steps, memory)
    given = (read, torch.arange(steps, device=memory.device), stepper.recall(memory), said, causal_mask(steps, memory))
    looked: list[Tensor] = []
    hidden = stepper.step(*given, looked=looked) if isinstance(stepper, TextStack) else stepper.step(*given)
    return Reread(stepper.logits(hidden)[0], averaged(looked)[0] if looked else None)


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """`transformers`' plain attention for a while: its fused kernels do not tell their weights."""
    with _SWITCHING:
        usual = model.config._attn_implementation
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(usual)


def averaged(layers: Sequence[Tensor]) -> Tensor:
    """Attention of layers, each (rows, heads, steps, places), to its mean (rows, steps, places), fp32."""
    return torch.stack([layer.float().mean(1) for layer in layers]).mean(0)


def on_patches(attention: Tensor) -> Tensor | None:
    """Attention (steps, places) as (steps, rows, columns) over a square of patches; None where places are none.

    What stands before the patches, such as a class token, is dropped.
    """
    places = attention.shape[-1]
    side = isqrt(places)
    if not side or places - side * side > MOST_BEFORE_PATCHES:
        return None
    return attention[:, places - side * side :].unflatten(-1, (side, side))
