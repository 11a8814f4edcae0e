"""GPT-2 with cross-attention over captions grouped by image, in training and in generation.

The weights and layers are those of `transformers`' `GPT2LMHeadModel`; see `blip_text` for the grouping.
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
    """Hidden states (rows, hidden size) of every row of the grid, over memory (images, patches, hidden size)."""
    body = decoder.transformer
    hidden = body.drop(body.wte(grid.pack(tokens)) + body.wpe(grid.positions))
    for block in body.h:
        if recompute and decoder.training:
            hidden = checkpoint(call_layer, _block, block, hidden, memory, grid, use_reentrant=False)
        else:
            hidden = call_layer(_block, block, hidden, memory, grid)
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
    query = grid.per_image(cross.q_attn(block.ln_cross_attn(hidden)), heads)
    attended = attend(query, key, value, dropout=dropout)
    hidden = hidden + cross.resid_dropout(cross.c_proj(grid.from_images(attended)))
    return hidden + block.mlp(block.ln_2(hidden))


def gpt2_decoder(decoder: Any, bridge: Any, dtype: torch.dtype) -> TextDecoder:
    """The same layers for generation; `bridge` is the projection of the memory, or None."""
    body, config = decoder.transformer, decoder.config
    return TextDecoder(
        token_embeddings=body.wte.weight,
        position_embeddings=body.wpe.weight,
        layers=[_fused_layer(block, config.activation_function, dtype) for block in body.h],
        num_heads=config.num_attention_heads,
        head=FusedLinear(decoder.lm_head, dtype=dtype),
        dtype=dtype,
        pre_norm=True,
        final_norm=LayerNorm(body.ln_f, dtype),
        bridge=FusedLinear(bridge, dtype=dtype) if bridge is not None else None,
    )


def _fused_layer(block: Any, activation: str, dtype: torch.dtype) -> DecoderLayer:
    own, cross = block.attn, block.crossattention
    return DecoderLayer(
        attention_norm=LayerNorm(block.ln_1, dtype),
        qkv=FusedLinear(own.c_attn, dtype=dtype),
        attention_out=FusedLinear(own.c_proj, dtype=dtype),
        cross=CrossAttention(
            norm=LayerNorm(block.ln_cross_attn, dtype),
            query=FusedLinear(cross.q_attn, dtype=dtype),
            key_value=FusedLinear(cross.c_attn, dtype=dtype),
            out=FusedLinear(cross.c_proj, dtype=dtype),
        ),
        mlp_norm=LayerNorm(block.ln_2, dtype),
        mlp=FusedSequential(
            FusedLinear(block.mlp.c_fc, dtype=dtype, activation=activation),
            FusedLinear(block.mlp.c_proj, dtype=dtype),
        ),
    )
