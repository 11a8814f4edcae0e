"""GIT's text transformer: the picture is a prefix that all its captions share.

The picture's rows see one another and no word, so they pass the layers once for all
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
from captune.models.dense import Chain, Dense, Norm
from captune.models.layered import run
from captune.models.text_stack import Layer, TextStack


def decode_grouped(git: Any, picture: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False) -> Tensor:
    """Hidden states of every row of the grid, behind the picture (pictures, patches, hidden size)."""
    embeddings = git.embeddings
    words = embeddings.word_embeddings(grid.pack(tokens)) + embeddings.position_embeddings(grid.positions)
    words = embeddings.dropout(embeddings.LayerNorm(words))
    mask = _own_caption_before(grid, picture)
    for layer in git.encoder.layer:
        if recompute and git.training:
            picture, words = checkpoint(run, _layer, layer, picture, words, grid, mask, use_reentrant=False)
        else:
            picture, words = run(_layer, layer, picture, words, grid, mask)
    return words


def _own_caption_before(grid: CaptionGrid, like: Tensor) -> Tensor:
    """What words see: 0, else -inf; (1, 1, most · width, patches + most · width), the picture's rows first."""
    places = torch.arange(grid.most * grid.width, device=like.device)
    caption, step = places // grid.width, places % grid.width
    seen = (caption[:, None] == caption) & (step[:, None] >= step)
    words = torch.zeros(seen.shape, device=like.device).masked_fill(~seen, float("-inf"))
    return functional.pad(words, (like.shape[1], 0))[None, None]


def _layer(layer: Any, picture: Tensor, words: Tensor, grid: CaptionGrid, mask: Tensor) -> tuple[Tensor, Tensor]:
    own = layer.attention.self
    heads, dropout = own.num_attention_heads, own.dropout.p if own.training else 0.0
    shape = (*picture.shape[:2], heads, -1)
    of_picture = [part(picture).view(shape).transpose(1, 2) for part in (own.query, own.key, own.value)]
    of_words = [grid.per_picture(part(words), heads) for part in (own.query, own.key, own.value)]
    attended = attend(*of_picture, dropout=dropout).transpose(1, 2).flatten(2)
    key, value = (torch.cat([a, b], 2) for a, b in zip(of_picture[1:], of_words[1:], strict=True))
    read = grid.from_pictures(attend(of_words[0], key, value, mask=mask, dropout=dropout))
    return (
        layer.feed_forward_chunk(layer.attention.output(attended, picture)),
        layer.feed_forward_chunk(layer.attention.output(read, words)),
    )


def git_stack(model: Any, dtype: torch.dtype) -> TextStack:
    """A `GitForCausalLM`'s text part for generation."""
    git, config = model.git, model.config
    project, norm = git.visual_projection.visual_projection
    return TextStack(
        words=git.embeddings.word_embeddings.weight,
        positions=git.embeddings.position_embeddings.weight,
        first=Norm(git.embeddings.LayerNorm, dtype),
        layers=[_laid_out(layer, config.hidden_act, dtype) for layer in git.encoder.layer],
        heads=config.num_attention_heads,
        head=Dense(model.output, dtype=dtype),
        dtype=dtype,
        bridge=Chain(Dense(project, dtype=dtype), Norm(norm, dtype)),
    )


def _laid_out(layer: Any, activation: str, dtype: torch.dtype) -> Layer:
    own, output = layer.attention.self, layer.attention.output
    return Layer(
        norm=Norm(output.LayerNorm, dtype),
        own=Dense(own.query, own.key, own.value, dtype=dtype),
        out=Dense(output.dense, dtype=dtype),
        cross=None,
        wide_norm=Norm(layer.output.LayerNorm, dtype),
        up=Dense(layer.intermediate.dense, dtype=dtype, activation=activation),
        down=Dense(layer.output.dense, dtype=dtype),
    )


class Seen(nn.Module):
    """Stands where the vision part was while `transformers` searches: what was seen already is its input."""

    def forward(self, pixel_values: Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=pixel_values[:, 0])
