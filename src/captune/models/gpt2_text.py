"""GPT-2 with cross-attention over captions grouped by picture, in training and in generation.

The weights and layers are those of `transformers`' `GPT2LMHeadModel`; see `blip_text` for the grouping.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from captune.models.attention import CaptionGrid, attend
from captune.models.dense import ACTIVATIONS, Dense, Norm
from captune.models.layered import run
from captune.models.text_stack import Cross, Layer, TextStack


def is_plain_gpt2(decoder: Any) -> bool:
    """Whether a decoder is a GPT-2 with cross-attention and none of the rarer ways to scale attention."""
    config = decoder.config
    return (
        config.model_type == "gpt2"
        and config.add_cross_attention
        and config.activation_function in ACTIVATIONS
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.reorder_and_upcast_attn
    )


def decode_grouped(
    decoder: Any, memory: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False
) -> Tensor:
    """Hidden states (rows, hidden size) of every row of the grid, over memory (pictures, patches, hidden size)."""
    body = decoder.transformer
    hidden = body.drop(body.wte(grid.pack(tokens)) + body.wpe(grid.positions))
    for block in body.h:
        if recompute and decoder.training:
            hidden = checkpoint(run, _block, block, hidden, memory, grid, use_reentrant=False)
        else:
            hidden = run(_block, block, hidden, memory, grid)
    return body.ln_f(hidden)


def _block(block: Any, hidden: Tensor, memory: Tensor, grid: CaptionGrid) -> Tensor:
    own, cross = block.attn, block.crossattention
    heads, dropout = own.num_heads, own.attn_dropout.p if own.training else 0.0
    query, key, value = (
        grid.per_caption(part, heads) for part in own.c_attn(block.ln_1(hidden)).split(own.split_size, -1)
    )
    attended = attend(query, key, value, causal=True, dropout=dropout)
    hidden = hidden + own.resid_dropout(own.c_proj(grid.from_captions(attended)))

    shape = (*memory.shape[:2], heads, -1)
    key, value = (part.view(shape).transpose(1, 2) for part in cross.c_attn(memory).split(cross.split_size, -1))
    query = grid.per_picture(cross.q_attn(block.ln_cross_attn(hidden)), heads)
    attended = attend(query, key, value, dropout=dropout)
    hidden = hidden + cross.resid_dropout(cross.c_proj(grid.from_pictures(attended)))
    return hidden + block.mlp(block.ln_2(hidden))


def gpt2_stack(decoder: Any, bridge: Any, dtype: torch.dtype) -> TextStack:
    """The same layers for generation; `bridge` is the projection of the memory, or None."""
    body, config = decoder.transformer, decoder.config
    return TextStack(
        words=body.wte.weight,
        positions=body.wpe.weight,
        layers=[_laid_out(block, config.activation_function, dtype) for block in body.h],
        heads=config.num_attention_heads,
        head=Dense(decoder.lm_head, dtype=dtype),
        dtype=dtype,
        norms_first=True,
        last=Norm(body.ln_f, dtype),
        bridge=Dense(bridge, dtype=dtype) if bridge is not None else None,
    )


def _laid_out(block: Any, activation: str, dtype: torch.dtype) -> Layer:
    own, cross = block.attn, block.crossattention
    return Layer(
        norm=Norm(block.ln_1, dtype),
        own=Dense(own.c_attn, dtype=dtype),
        out=Dense(own.c_proj, dtype=dtype),
        cross=Cross(
            norm=Norm(block.ln_cross_attn, dtype),
            asked=Dense(cross.q_attn, dtype=dtype),
            remembered=Dense(cross.c_attn, dtype=dtype),
            out=Dense(cross.c_proj, dtype=dtype),
        ),
        wide_norm=Norm(block.ln_2, dtype),
        up=Dense(block.mlp.c_fc, dtype=dtype, activation=activation),
        down=Dense(block.mlp.c_proj, dtype=dtype),
    )
