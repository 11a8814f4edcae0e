"""GIT's text transformer: the image is a prefix that all its captions share.

The image's rows see one another and no word, so they pass the layers once for all
captions; words see them and the words of their own caption before. Weights and layers are
those of `transformers`' `GitModel`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from captune.models.attention import CaptionGrid, attend
from captune.models.dense import FusedLinear, FusedSequential, LayerNorm
from captune.models.layered import call_layer
from captune.models.text_stack import DecoderLayer, TextDecoder


def decode_grouped(git: Any, image: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False) -> Tensor:
    """Hidden states of every row of the grid, behind the image (images, patches, hidden size)."""
    embeddings = git.embeddings
    words = embeddings.word_embeddings(grid.pack(tokens)) + embeddings.position_embeddings(grid.positions)
    words = embeddings.dropout(embeddings.LayerNorm(words))
    mask = _own_caption_before(grid, image)
    for layer in git.encoder.layer:
        if recompute and git.training:
            image, words = checkpoint(call_layer, _layer, layer, image, words, grid, mask, use_reentrant=False)
        else:
            image, words = call_layer(_layer, layer, image, words, grid, mask)
    return words


def _own_caption_before(grid: CaptionGrid, like: Tensor) -> Tensor:
    """0 where a token attends, else -inf; (1, 1, captions · width, patches + captions · width), the image first."""
    places = torch.arange(grid.max_captions * grid.width, device=like.device)
    caption, step = places // grid.width, places % grid.width
    visible = (caption[:, None] == caption) & (step[:, None] >= step)
    words = torch.zeros(visible.shape, device=like.device).masked_fill(~visible, float("-inf"))
    return functional.pad(words, (like.shape[1], 0))[None, None]


def _layer(layer: Any, image: Tensor, words: Tensor, grid: CaptionGrid, mask: Tensor) -> tuple[Tensor, Tensor]:
    own = layer.attention.self
    heads, dropout = own.num_attention_heads, own.dropout.p if own.training else 0.0
    shape = (*image.shape[:2], heads, -1)
    of_image = [part(image).view(shape).transpose(1, 2) for part in (own.query, own.key, own.value)]
    of_tokens = [grid.per_image(part(words), heads) for part in (own.query, own.key, own.value)]
    attended = attend(*of_image, dropout=dropout).transpose(1, 2).flatten(2)
    key, value = (torch.cat([a, b], 2) for a, b in zip(of_image[1:], of_tokens[1:], strict=True))
    read = grid.from_images(attend(of_tokens[0], key, value, mask=mask, dropout=dropout))
    return (
        layer.feed_forward_chunk(layer.attention.output(attended, image)),
        layer.feed_forward_chunk(layer.attention.output(read, words)),
    )


def git_decoder(model: Any, dtype: torch.dtype) -> TextDecoder:
    """A `GitForCausalLM`'s text part for generation."""
    git, config = model.git, model.config
    project, norm = git.visual_projection.visual_projection
    return TextDecoder(
        token_embeddings=git.embeddings.word_embeddings.weight,
        position_embeddings=git.embeddings.position_embeddings.weight,
        embedding_norm=LayerNorm(git.embeddings.LayerNorm, dtype),
        layers=[_fused_layer(layer, config.hidden_act, dtype) for layer in git.encoder.layer],
        num_heads=config.num_attention_heads,
        head=FusedLinear(model.output, dtype=dtype),
        dtype=dtype,
        bridge=FusedSequential(FusedLinear(project, dtype=dtype), LayerNorm(norm, dtype)),
    )


def _fused_layer(layer: Any, activation: str, dtype: torch.dtype) -> DecoderLayer:
    own, output = layer.attention.self, layer.attention.output
    return DecoderLayer(
        attention_norm=LayerNorm(output.LayerNorm, dtype),
        qkv=FusedLinear(own.query, own.key, own.value, dtype=dtype),
        attention_out=FusedLinear(output.dense, dtype=dtype),
        cross=None,
        mlp_norm=LayerNorm(layer.output.LayerNorm, dtype),
        mlp=FusedSequential(
            FusedLinear(layer.intermediate.dense, dtype=dtype, activation=activation),
            FusedLinear(layer.output.dense, dtype=dtype),
        ),
    )


class ImagePrefix(nn.Module):
    """Stands in for the vision part while `transformers` searches: its input is the memory, computed before."""

    def forward(self, pixel_values: Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=pixel_values[:, 0])
