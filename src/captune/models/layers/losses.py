"""Losses of packed captions, and the teacher-forced pass over a finished caption."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from captune.models.decoder import Decoder, causal_mask
from captune.models.layers.attention import CaptionGrid
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


@dataclass(frozen=True)
class TokenLosses:
    """One value for each supervised token, in the order of the captions.

    `nll` is the plain negative log-likelihood in nats, `objective` the same with label
    smoothing (what is minimised), `caption` the index of the caption a token belongs to.
    """

    nll: Tensor
    objective: Tensor
    caption: Tensor


def padded_losses(
    logits: Tensor, tokens: Tensor, lengths: Tensor, given: Tensor, label_smoothing: float
) -> TokenLosses:
    """The same from logits (captions, steps - 1, vocabulary) that a model computed of padded captions."""
    steps = torch.arange(1, tokens.shape[1], device=tokens.device)
    labelled = (steps < lengths[:, None]) & (steps >= given[:, None])
    caption, place = labelled.nonzero().unbind(1)
    return losses_of(logits[caption, place], tokens[caption, place + 1], caption, label_smoothing)


def token_losses(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    grid: CaptionGrid,
    given: Tensor,
    label_smoothing: float,
) -> TokenLosses:
    """Losses of the tokens behind the first `given` (captions,) of each, from a grid's hidden states (rows, width)."""
    # Of all rows, not of the labelled ones alone: their number is rounded, and only prompts have no label.
    found = losses_of(head(hidden), grid.pack(tokens[:, 1:]), grid.caption_of_token, label_smoothing)
    labelled = grid.real & (grid.positions + 1 >= given[grid.caption_of_token])
    return TokenLosses(found.nll[labelled], found.objective[labelled], found.caption[labelled])


def losses_of(logits: Tensor, labels: Tensor, caption: Tensor, label_smoothing: float) -> TokenLosses:
    """Losses of `labels` (tokens,) by logits (tokens, vocabulary)."""
    log_probs = functional.log_softmax(logits.float(), -1)
    nll = -log_probs.gather(1, labels[:, None])[:, 0]
    objective = nll
    if label_smoothing:
        objective = (1 - label_smoothing) * nll - label_smoothing * log_probs.mean(-1)
    return TokenLosses(nll, objective, caption)
