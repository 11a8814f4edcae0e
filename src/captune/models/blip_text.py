"""BLIP's text decoder over captions grouped by picture: one memory, packed tokens.

The weights and layers are those of `transformers`' `BlipTextLMHeadModel`; only the
attention is laid out anew, so that a picture's cross-attention keys and values are
computed once for all its captions and padding is never computed. In exact arithmetic the
result and the gradients are those of the plain forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from captune.models.attention import CaptionGrid, attend
from captune.models.dense import ACTIVATIONS, Chain, Dense, Norm
from captune.models.layered import run
from captune.models.text_stack import Cross, Layer, TextStack


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
            hidden = checkpoint(run, _layer, layer, hidden, memory, grid, use_reentrant=False)
        else:
            hidden = run(_layer, layer, hidden, memory, grid)
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


def blip_stack(decoder: Any, dtype: torch.dtype) -> TextStack | None:
    """The same layers for generation; None where their activation is not known here."""
    config, embeddings, head = decoder.config, decoder.bert.embeddings, decoder.cls.predictions
    if config.hidden_act not in ACTIVATIONS:
        return None
    change = Dense(head.transform.dense, dtype=dtype, activation=config.hidden_act)
    return TextStack(
        words=embeddings.word_embeddings.weight,
        positions=embeddings.position_embeddings.weight,
        first=Norm(embeddings.LayerNorm, dtype),
        layers=[_laid_out(layer, config.hidden_act, dtype) for layer in decoder.bert.encoder.layer],
        heads=config.num_attention_heads,
        head=Chain(change, Norm(head.transform.LayerNorm, dtype), Dense(head.decoder, dtype=dtype)),
        dtype=dtype,
    )


def _laid_out(layer: Any, activation: str, dtype: torch.dtype) -> Layer:
    own, cross = layer.attention, layer.crossattention
    return Layer(
        norm=Norm(own.output.LayerNorm, dtype),
        own=Dense(own.self.query, own.self.key, own.self.value, dtype=dtype),
        out=Dense(own.output.dense, dtype=dtype),
        cross=Cross(
            norm=Norm(cross.output.LayerNorm, dtype),
            asked=Dense(cross.self.query, dtype=dtype),
            remembered=Dense(cross.self.key, cross.self.value, dtype=dtype),
            out=Dense(cross.output.dense, dtype=dtype),
        ),
        wide_norm=Norm(layer.output.LayerNorm, dtype),
        up=Dense(layer.intermediate.dense, dtype=dtype, activation=activation),
        down=Dense(layer.output.dense, dtype=dtype),
    )
