"""The likelihood of each word of packed captions: one forward pass for training, validation and perplexity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from captune.models.layers.attention import CaptionGrid


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
    return _of(logits[caption, place], tokens[caption, place + 1], caption, label_smoothing)


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
    found = _of(head(hidden), grid.pack(tokens[:, 1:]), grid.caption_of_token, label_smoothing)
    labelled = grid.real & (grid.positions + 1 >= given[grid.caption_of_token])
    return TokenLosses(found.nll[labelled], found.objective[labelled], found.caption[labelled])


def _of(logits: Tensor, labels: Tensor, caption: Tensor, label_smoothing: float) -> TokenLosses:
    log_probs = functional.log_softmax(logits.float(), -1)
    nll = -log_probs.gather(1, labels[:, None])[:, 0]
    objective = nll
    if label_smoothing:
        objective = (1 - label_smoothing) * nll - label_smoothing * log_probs.mean(-1)
    return TokenLosses(nll, objective, caption)
