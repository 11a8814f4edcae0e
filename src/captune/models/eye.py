"""Vision transformers for inference: the layers of `transformers`' with fused weights and attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captune.models.attention import attend_now
from captune.models.dense import ACTIVATIONS, Dense, Norm, join_heads, split_heads


@dataclass
class Layer:
    """A layer whose norms stand before attention and before the wide part."""

    before: Norm
    own: Dense
    out: Dense
    between: Norm
    up: Dense
    down: Dense


class Eye:
    """A vision transformer with one class token, laid out in a number type; no dropout, no gradients.

    `first` (1, 1, width) is the class token at its place, `positions` (1, patches, width)
    those of the patches; `before` stands before the layers, `behind` after them.
    """

    def __init__(
        self,
        *,
        patches: Dense,
        patch: int,
        first: Tensor,
        positions: Tensor,
        layers: list[Layer],
        heads: int,
        dtype: torch.dtype,
        before: Norm | None = None,
        behind: Norm | None = None,
    ) -> None:
        self.patches, self.patch, self.layers, self.heads, self.dtype = patches, patch, layers, heads, dtype
        self.first, self.positions = first.detach().to(dtype), positions.detach().to(dtype)
        self.before, self.behind = before, behind

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (pictures, 3, side, side) to (pictures, 1 + patches, width)."""
        pictures, channels, side, _ = pixels.shape
        count, patch = side // self.patch, self.patch
        cut = pixels.to(self.dtype).view(pictures, channels, count, patch, count, patch)
        rows = self.patches(cut.permute(0, 2, 4, 1, 3, 5).reshape(pictures, count * count, -1)) + self.positions
        hidden = torch.cat([self.first.expand(pictures, -1, -1), rows], 1)
        hidden = hidden if self.before is None else self.before(hidden)
        for layer in self.layers:
            attended = attend_now(*split_heads(layer.own(layer.before(hidden)), 3, self.heads))
            hidden = hidden + layer.out(join_heads(attended))
            hidden = hidden + layer.down(layer.up(layer.between(hidden)))
        return hidden if self.behind is None else self.behind(hidden)


def blip_eye(vision: Any, dtype: torch.dtype) -> Eye | None:
    """A `BlipVisionModel`; None where its activation is not known here."""
    if vision.config.hidden_act not in ACTIVATIONS:
        return None
    embeddings, position = vision.embeddings, vision.embeddings.position_embedding
    return Eye(
        patches=Dense(embeddings.patch_embedding, dtype=dtype),
        patch=embeddings.patch_size,
        first=embeddings.class_embedding + position[:, :1],
        positions=position[:, 1:],
        layers=[
            _layer(layer, (layer.self_attn.qkv,), layer.self_attn.projection, vision.config.hidden_act, dtype)
            for layer in vision.encoder.layers
        ],
        heads=vision.config.num_attention_heads,
        dtype=dtype,
        behind=Norm(vision.post_layernorm, dtype),
    )


def clip_eye(vision: Any, config: Any, dtype: torch.dtype, *, norm_behind: bool) -> Eye | None:
    """The transformer in a `CLIPVisionModel` or a `GitVisionModel`; None where its activation is not known here."""
    if config.hidden_act not in ACTIVATIONS:
        return None
    embeddings, position = vision.embeddings, vision.embeddings.position_embedding.weight[None]
    return Eye(
        patches=Dense(embeddings.patch_embedding, dtype=dtype),
        patch=embeddings.patch_size,
        first=embeddings.class_embedding + position[:, :1],
        positions=position[:, 1:],
        layers=[
            _layer(
                layer,
                (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                layer.self_attn.out_proj,
                config.hidden_act,
                dtype,
            )
            for layer in vision.encoder.layers
        ],
        heads=config.num_attention_heads,
        dtype=dtype,
        before=Norm(vision.pre_layrnorm, dtype),
        behind=Norm(vision.post_layernorm, dtype) if norm_behind else None,
    )


def _layer(layer: Any, own: tuple[Any, ...], out: Any, activation: str, dtype: torch.dtype) -> Layer:
    return Layer(
        Norm(layer.layer_norm1, dtype),
        Dense(*own, dtype=dtype),
        Dense(out, dtype=dtype),
        Norm(layer.layer_norm2, dtype),
        Dense(layer.mlp.fc1, dtype=dtype, activation=activation),
        Dense(layer.mlp.fc2, dtype=dtype),
    )
