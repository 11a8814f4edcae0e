"""BLIP's vision transformer for inference: the layers of `transformers`' with fused attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captune.models.attention import attend_now
from captune.models.dense import Dense, Norm, join_heads, split_heads


class BlipEye:
    """A `BlipVisionModel` laid out in a number type; no dropout, no gradients."""

    def __init__(self, vision: Any, dtype: torch.dtype) -> None:
        embeddings = vision.embeddings
        self.dtype, self.patch = dtype, embeddings.patch_size
        self.heads = vision.config.num_attention_heads
        self.patches = Dense(embeddings.patch_embedding, dtype=dtype)
        self.first = (embeddings.class_embedding + embeddings.position_embedding[:, :1]).detach().to(dtype)
        self.positions = embeddings.position_embedding[:, 1:].detach().to(dtype)
        self.blocks = [_Block(layer, dtype) for layer in vision.encoder.layers]
        self.norm = Norm(vision.post_layernorm, dtype)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (pictures, 3, side, side) to (pictures, 1 + patches, width)."""
        pictures, channels, side, _ = pixels.shape
        count, patch = side // self.patch, self.patch
        cut = pixels.to(self.dtype).view(pictures, channels, count, patch, count, patch)
        rows = self.patches(cut.permute(0, 2, 4, 1, 3, 5).reshape(pictures, count * count, -1)) + self.positions
        hidden = torch.cat([self.first.expand(pictures, -1, -1), rows], 1)
        for block in self.blocks:
            query, keys, values = split_heads(block.own(block.norm_1(hidden)), 3, self.heads)
            attended = attend_now(query, keys, values)
            hidden = hidden + block.out(join_heads(attended))
            hidden = hidden + block.down(block.up(block.norm_2(hidden)))
        return self.norm(hidden)


class _Block:
    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self.norm_1, self.norm_2 = Norm(layer.layer_norm1, dtype), Norm(layer.layer_norm2, dtype)
        self.own = Dense(layer.self_attn.qkv, dtype=dtype)
        self.out = Dense(layer.self_attn.projection, dtype=dtype)
        self.up, self.down = Dense(layer.mlp.fc1, dtype=dtype, gelu=True), Dense(layer.mlp.fc2, dtype=dtype)
