"""Text decoders for generation: an image's keys and values once, all its captions as rows over them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from captune.models.decoder import Decoder, KVCache
from captune.models.layers.attention import attend_now, attention
from captune.models.layers.fused import FusedLinear, FusedSequential, LayerNorm, join_heads, split_heads


def call_layer(forward: Callable[..., Any], layer: Any, *inputs: Any, recompute: bool = False) -> Any:
    """`forward(layer, *inputs)`; a layer whose weights are shared among processes (FSDP) gathers them meanwhile.

    With `recompute`, its activations are computed again in the backward pass instead of stored.
    """
    if recompute:
        return checkpoint(call_layer, forward, layer, *inputs, use_reentrant=False)
    if not hasattr(layer, "unshard"):
        return forward(layer, *inputs)
    layer.forward = partial(forward, layer)
    try:
        return layer(*inputs)
    finally:
        del layer.forward


@dataclass
class CrossAttention:
    """Attention to the image."""

    norm: LayerNorm
    query: FusedLinear
    key_value: FusedLinear
    out: FusedLinear


@dataclass
class DecoderLayer:
    """Self-attention, attention to the image where the layer has one, and the MLP."""

    attention_norm: LayerNorm
    qkv: FusedLinear
    attention_out: FusedLinear
    cross: CrossAttention | None
    mlp_norm: LayerNorm
    mlp: FusedSequential


class TextDecoder(Decoder):
    """A text decoder with fused weights in one number type.

    With `pre_norm` each norm stands before its part (GPT-2), else behind the sum (BERT). Without cross-attention the
    image is a prefix: its rows pass the layers once, attending to one another, and tokens attend to their keys and
    values (GIT). `bridge` maps the memory to what the layers attend to.
    """

    def __init__(
        self,
        *,
        token_embeddings: Tensor,
        position_embeddings: Tensor,
        layers: list[DecoderLayer],
        num_heads: int,
        head: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
        pre_norm: bool = False,
        embedding_norm: LayerNorm | None = None,
        final_norm: LayerNorm | None = None,
        bridge: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.token_embeddings = token_embeddings.detach().to(dtype)
        self.position_embeddings = position_embeddings.detach().to(dtype)
        self.layers, self.head, self.pre_norm, self.bridge = layers, head, pre_norm, bridge
        self.num_layers, self.num_heads, self.head_dim = len(layers), num_heads, token_embeddings.shape[1] // num_heads
        self.embedding_norm, self.final_norm = embedding_norm, final_norm

    def prefill(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        image_kv = []
        memory = memory if self.bridge is None else self.bridge(memory)
        for layer in self.layers:
            if layer.cross is not None:
                keys, values = split_heads(layer.cross.key_value(memory), 2, self.num_heads)
            else:
                qkv = layer.qkv(self._norm_before(layer.attention_norm, memory))
                query, keys, values = split_heads(qkv, 3, self.num_heads)
                attended = layer.attention_out(join_heads(attend_now(query, keys, values)))
                memory = self._mlp(layer, self._add(layer.attention_norm, memory, attended))
            image_kv.append((keys.contiguous(), values.contiguous()))
        return image_kv

    def step(
        self,
        tokens: Tensor,
        positions: Tensor,
        image_kv: list[tuple[Tensor, Tensor]],
        cache: KVCache,
        mask: Tensor | None,
        attention_maps: list[Tensor] | None = None,
    ) -> Tensor:
        """As `Decoder.step`; `attention_maps` gets each layer's (images, heads, rows, places)."""
        hidden = functional.embedding(tokens, self.token_embeddings)
        hidden = hidden + functional.embedding(positions, self.position_embeddings)
        hidden = hidden if self.embedding_norm is None else self.embedding_norm(hidden)
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(self._norm_before(layer.attention_norm, hidden))
            query, keys, values = split_heads(qkv, 3, self.num_heads)
            keys, values = cache.append(number, keys, values)
            if layer.cross is None:
                attended = _attend_both(query, image_kv[number], (keys, values), mask, attention_maps)
            else:
                attended = attend_now(query, keys, values, mask)
            hidden = self._add(layer.attention_norm, hidden, layer.attention_out(join_heads(attended)))
            if layer.cross is not None:
                (query,) = split_heads(
                    layer.cross.query(self._norm_before(layer.cross.norm, hidden)), 1, self.num_heads
                )
                if attention_maps is not None:
                    attention_maps.append(attention(query, image_kv[number][0]))
                attended = attend_now(query, *image_kv[number])
                hidden = self._add(layer.cross.norm, hidden, layer.cross.out(join_heads(attended)))
            hidden = self._mlp(layer, hidden)
        cache.length += tokens.shape[1]
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).float()

    def _mlp(self, layer: DecoderLayer, hidden: Tensor) -> Tensor:
        return self._add(layer.mlp_norm, hidden, layer.mlp(self._norm_before(layer.mlp_norm, hidden)))

    def _norm_before(self, norm: LayerNorm, hidden: Tensor) -> Tensor:
        return norm(hidden) if self.pre_norm else hidden

    def _add(self, norm: LayerNorm, hidden: Tensor, update: Tensor) -> Tensor:
        """The residual sum, normed where norms stand behind it."""
        return hidden + update if self.pre_norm else norm(update + hidden)


def _attend_both(
    query: Tensor,
    image_kv: tuple[Tensor, Tensor],
    cached: tuple[Tensor, Tensor],
    mask: Tensor | None,
    attention_maps: list[Tensor] | None = None,
) -> Tensor:
    """One softmax over the image's rows and the cache, without copying the two together."""
    query = query * query.shape[-1] ** -0.5
    over_image = torch.matmul(query, image_kv[0].transpose(-1, -2))
    over_tokens = torch.matmul(query, cached[0].transpose(-1, -2))
    scores = torch.cat([over_image, over_tokens if mask is None else over_tokens + mask], -1)
    weights = torch.softmax(scores, -1)
    split = over_image.shape[-1]
    if attention_maps is not None:
        attention_maps.append(weights[..., :split])
    return torch.matmul(weights[..., :split], image_kv[1]) + torch.matmul(weights[..., split:], cached[1])
