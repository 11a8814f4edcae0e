"""BLIP's text decoder over captions grouped by image: one memory, packed tokens.

The weights and layers are those of `transformers`' `BlipTextLMHeadModel`; only the
attention is laid out anew, so that an image's cross-attention keys and values are
computed once for all its captions and padding is never computed. In exact arithmetic the
result and the gradients are those of the plain forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from captune.models.attention import CaptionGrid, attend
from captune.models.dense import ACTIVATIONS, FusedLinear, FusedSequential, LayerNorm
from captune.models.layered import call_layer
from captune.models.text_stack import CrossAttention, DecoderLayer, TextDecoder


def decode_grouped(
    decoder: Any, memory: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False
) -> Tensor:
    """Hidden states of every row of the grid.

    `memory` (images, patches, width), `tokens` (captions, steps) → (rows, hidden size).
    With `recompute`, activations are computed again in the backward pass instead of kept.
    """
    embeddings = decoder.bert.embeddings
    hidden = embeddings.word_embeddings(grid.pack(tokens)) + embeddings.position_embeddings(grid.positions)
    hidden = embeddings.dropout(embeddings.LayerNorm(hidden))
    for layer in decoder.bert.encoder.layer:
        if recompute and decoder.training:
            hidden = checkpoint(call_layer, _layer, layer, hidden, memory, grid, use_reentrant=False)
        else:
            hidden = call_layer(_layer, layer, hidden, memory, grid)
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
        grid.per_image(cross.query(hidden), heads),
        cross.key(memory).view(shape).transpose(1, 2),
        cross.value(memory).view(shape).transpose(1, 2),
        dropout=cross.dropout.p if cross.training else 0.0,
    )
    hidden = layer.crossattention.output(grid.from_images(attended), hidden)
    return layer.feed_forward_chunk(hidden)


def blip_decoder(decoder: Any, dtype: torch.dtype) -> TextDecoder | None:
    """The same layers for generation; None where their activation is not known here."""
    config, embeddings, head = decoder.config, decoder.bert.embeddings, decoder.cls.predictions
    if config.hidden_act not in ACTIVATIONS:
        return None
    transform = FusedLinear(head.transform.dense, dtype=dtype, activation=config.hidden_act)
    norm, output = LayerNorm(head.transform.LayerNorm, dtype), FusedLinear(head.decoder, dtype=dtype)
    return TextDecoder(
        token_embeddings=embeddings.word_embeddings.weight,
        position_embeddings=embeddings.position_embeddings.weight,
        embedding_norm=LayerNorm(embeddings.LayerNorm, dtype),
        layers=[_fused_layer(layer, config.hidden_act, dtype) for layer in decoder.bert.encoder.layer],
        num_heads=config.num_attention_heads,
        head=FusedSequential(transform, norm, output),
        dtype=dtype,
    )


def _fused_layer(layer: Any, activation: str, dtype: torch.dtype) -> DecoderLayer:
    own, cross = layer.attention, layer.crossattention
    return DecoderLayer(
        attention_norm=LayerNorm(own.output.LayerNorm, dtype),
        qkv=FusedLinear(own.self.query, own.self.key, own.self.value, dtype=dtype),
        attention_out=FusedLinear(own.output.dense, dtype=dtype),
        cross=CrossAttention(
            norm=LayerNorm(cross.output.LayerNorm, dtype),
            query=FusedLinear(cross.self.query, dtype=dtype),
            key_value=FusedLinear(cross.self.key, cross.self.value, dtype=dtype),
            out=FusedLinear(cross.output.dense, dtype=dtype),
        ),
        mlp_norm=LayerNorm(layer.output.LayerNorm, dtype),
        mlp=FusedSequential(
            FusedLinear(layer.intermediate.dense, dtype=dtype, activation=activation),
            FusedLinear(layer.output.dense, dtype=dtype),
        ),
    )
