"""A finished caption read once more, to see what was likely at each step and where the model attention_maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from captune.models.decoder import Decoder, causal_mask
from captune.models.layers.text_decoder import TextDecoder

# Class tokens and registers that a vision transformer puts before its patches.
MAX_TOKENS_BEFORE_PATCHES = 5
_SWITCHING = Lock()


@dataclass(frozen=True)
class TeacherForced:
    """Logits and attention of a finished caption; step n reads token n and chooses token n + 1.

    `logits` (steps, vocabulary) score the token behind each step. `attention` (steps, places), fp32, is how each
    step's attention falls on the places of the memory, averaged over heads and layers; None where a family has
    no such attention. Its rows sum to 1 at most: the rest fell on words.
    """

    logits: Tensor
    attention: Tensor | None


def teacher_forced_pass(decoder: Decoder, memory: Tensor, tokens: Sequence[int]) -> TeacherForced:
    """`tokens`, start and prompt included, over the memory (1, places, width) of their image."""
    read = torch.tensor([list(tokens)], device=memory.device)
    steps = read.shape[1]
    positions = torch.arange(steps, device=memory.device)
    inputs = (read, positions, decoder.prefill(memory), decoder.new_cache(1, steps, memory), causal_mask(steps, memory))
    maps: list[Tensor] = []
    hidden = decoder.step(*inputs, maps) if isinstance(decoder, TextDecoder) else decoder.step(*inputs)
    return TeacherForced(decoder.logits(hidden)[0], averaged(maps)[0] if maps else None)


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
    if not side or places - side * side > MAX_TOKENS_BEFORE_PATCHES:
        return None
    return attention[:, places - side * side :].unflatten(-1, (side, side))
