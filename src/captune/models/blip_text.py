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
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from captune.models.attention import CaptionGrid, attend, attend_now
from captune.models.dense import Dense, Norm, join_heads, split_heads
from captune.models.stepper import KeyValues, Stepper


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


class BlipStepper(Stepper):
    """The same layers for generation: a picture's keys and values once, all its captions as rows over them."""

    def __init__(self, decoder: Any, dtype: torch.dtype) -> None:
        config, embeddings, head = decoder.config, decoder.bert.embeddings, decoder.cls.predictions
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.words = embeddings.word_embeddings.weight.detach().to(dtype)
        self.positions = embeddings.position_embeddings.weight.detach().to(dtype)
        self.norm = Norm(embeddings.LayerNorm, dtype)
        self.blocks = [_Block(layer, dtype) for layer in decoder.bert.encoder.layer]
        self.change = Dense(head.transform.dense, dtype=dtype, gelu=True)
        self.change_norm = Norm(head.transform.LayerNorm, dtype)
        self.vocabulary = Dense(head.decoder, dtype=dtype)

    def recall(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        found = []
        for block in self.blocks:
            keys, values = split_heads(block.remembered(memory), 2, self.heads)
            found.append((keys.contiguous(), values.contiguous()))
        return found

    def step(
        self,
        tokens: Tensor,
        positions: Tensor,
        recalled: list[tuple[Tensor, Tensor]],
        said: KeyValues,
        mask: Tensor | None,
    ) -> Tensor:
        hidden = self.norm(functional.embedding(tokens, self.words) + functional.embedding(positions, self.positions))
        for number, block in enumerate(self.blocks):
            query, keys, values = split_heads(block.own(hidden), 3, self.heads)
            keys, values = said.write(number, keys, values)
            attended = attend_now(query, keys, values, mask)
            hidden = block.own_norm(block.own_out(join_heads(attended)) + hidden)
            (query,) = split_heads(block.asked(hidden), 1, self.heads)
            attended = attend_now(query, *recalled[number])
            hidden = block.cross_norm(block.cross_out(join_heads(attended)) + hidden)
            hidden = block.norm(block.down(block.up(hidden)) + hidden)
        said.used += tokens.shape[1]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        return self.vocabulary(self.change_norm(self.change(hidden))).float()


class _Block:
    """A layer's weights as generation uses them."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        own, cross = layer.attention, layer.crossattention
        self.own = Dense(own.self.query, own.self.key, own.self.value, dtype=dtype)
        self.own_out, self.own_norm = Dense(own.output.dense, dtype=dtype), Norm(own.output.LayerNorm, dtype)
        self.asked = Dense(cross.self.query, dtype=dtype)
        self.remembered = Dense(cross.self.key, cross.self.value, dtype=dtype)
        self.cross_out, self.cross_norm = Dense(cross.output.dense, dtype=dtype), Norm(cross.output.LayerNorm, dtype)
        self.up, self.down = (
            Dense(layer.intermediate.dense, dtype=dtype, gelu=True),
            Dense(layer.output.dense, dtype=dtype),
        )
        self.norm = Norm(layer.output.LayerNorm, dtype)
