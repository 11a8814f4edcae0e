"""BLIP's text decoder over captions grouped by picture: one memory, packed tokens.

The weights and layers are those of `transformers`' `BlipTextLMHeadModel`; only the
attention is laid out anew, so that a picture's cross-attention keys and values are
computed once for all its captions and padding is never computed. In exact arithmetic the
result and the gradients are those of the plain forward pass.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from captune.models.attention import CaptionGrid, attend


def decode_grouped(
    decoder: Any, memory: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False
) -> Tensor:
    """Hidden states of every row of the grid.

    `memory` (pictures, patches, width), `tokens` (captions, steps) → (rows, hidden size).
    With `recompute`, activations are computed again in the backward pass instead of kept.
    """
    embeddings = decoder.bert.embeddings
    hidden = embeddings.word_embeddings(grid.pack(tokens)) + embeddings.position_embeddings(grid.positions)
    hidden = embeddings.dropout(embeddings.LayerNorm(hidden))
    for layer in decoder.bert.encoder.layer:
        if recompute and decoder.training:
            hidden = checkpoint(_layer, layer, hidden, memory, grid, use_reentrant=False)
        else:
            hidden = _layer(layer, hidden, memory, grid)
    return hidden


def _layer(layer: Any, hidden: Tensor, memory: Tensor, grid: CaptionGrid) -> Tensor:
    own, cross = layer.attention.self, layer.crossattention.self
    heads = own.num_attention_heads
    attended = attend(
        grid.per_caption(own.query(hidden), heads),
        grid.per_caption(own.key(hidden), heads),
        grid.per_caption(own.value(hidden), heads),
        causal=True,
        dropout=own.dropout.p if own.training else 0.0,
    )
    hidden = layer.attention.output(grid.from_captions(attended), hidden)

    shape = (*memory.shape[:2], heads, -1)
    attended = attend(
        grid.per_picture(cross.query(hidden), heads),
        cross.key(memory).view(shape).transpose(1, 2),
        cross.value(memory).view(shape).transpose(1, 2),
        dropout=cross.dropout.p if cross.training else 0.0,
    )
    hidden = layer.crossattention.output(grid.from_pictures(attended), hidden)
    return layer.feed_forward_chunk(hidden)
