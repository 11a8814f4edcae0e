"""Vision transformers for inference: the layers of `transformers` with fused weights and attention."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from captune.core.errors import UsageError
from captune.models.layers.attention import attend_now
from captune.models.layers.fused import ACTIVATIONS, FusedLinear, FusedSequential, LayerNorm, join_heads, split_heads


@dataclass
class EncoderLayer:
    """A layer whose norms stand before attention and before the MLP."""

    attention_norm: LayerNorm
    qkv: FusedLinear
    attention_out: FusedLinear
    mlp_norm: LayerNorm
    mlp: FusedSequential


class VisionEncoder:
    """A vision transformer with one class token and fused weights in one number type; no dropout, no gradients.

    `class_token` (1, 1, width) has its position added, `positions` (1, patches, width) are those of the patches.
    """

    def __init__(
        self,
        *,
        patch_embedding: FusedLinear,
        patch_size: int,
        class_token: Tensor,
        positions: Tensor,
        layers: list[EncoderLayer],
        num_heads: int,
        dtype: torch.dtype,
        pre_norm: LayerNorm | None,
        post_norm: LayerNorm | None,
    ) -> None:
        self.patch_embedding, self.patch_size, self.layers = patch_embedding, patch_size, layers
        self.class_token, self.positions = class_token.detach().to(dtype), positions.detach().to(dtype)
        self.num_heads, self.dtype, self.pre_norm, self.post_norm = num_heads, dtype, pre_norm, post_norm

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (images, 3, side, side) to (images, 1 + patches, width)."""
        images, channels, side, _ = pixels.shape
        count, size = side // self.patch_size, self.patch_size
        cut = pixels.to(self.dtype).view(images, channels, count, size, count, size)
        patches = self.patch_embedding(cut.permute(0, 2, 4, 1, 3, 5).reshape(images, count * count, -1))
        hidden = torch.cat([self.class_token.expand(images, -1, -1), patches + self.positions], 1)
        hidden = hidden if self.pre_norm is None else self.pre_norm(hidden)
        for layer in self.layers:
            attended = attend_now(*split_heads(layer.qkv(layer.attention_norm(hidden)), 3, self.num_heads))
            hidden = hidden + layer.attention_out(join_heads(attended))
            hidden = hidden + layer.mlp(layer.mlp_norm(hidden))
        return hidden if self.post_norm is None else self.post_norm(hidden)


def blip_vision_encoder(vision: Any, dtype: torch.dtype) -> VisionEncoder | None:
    """A `BlipVisionModel`; None where its activation is not known here."""
    return _build(vision, vision.config, dtype, vision.embeddings.position_embedding, vision.post_layernorm)


def clip_vision_encoder(vision: Any, config: Any, dtype: torch.dtype, *, post_norm: bool) -> VisionEncoder | None:
    """The transformer in a `CLIPVisionModel` or a `GitVisionModel`; None where its activation is not known here."""
    positions = vision.embeddings.position_embedding.weight[None]
    return _build(vision, config, dtype, positions, vision.post_layernorm if post_norm else None)


def _build(vision: Any, config: Any, dtype: torch.dtype, positions: Tensor, post_norm: Any) -> VisionEncoder | None:
    if config.hidden_act not in ACTIVATIONS:
        return None
    embeddings, pre_norm = vision.embeddings, getattr(vision, "pre_layrnorm", None)
    return VisionEncoder(
        patch_embedding=FusedLinear(embeddings.patch_embedding, dtype=dtype),
        patch_size=embeddings.patch_size,
        class_token=embeddings.class_embedding + positions[:, :1],
        positions=positions[:, 1:],
        layers=[_layer(layer, config.hidden_act, dtype) for layer in vision.encoder.layers],
        num_heads=config.num_attention_heads,
        dtype=dtype,
        pre_norm=LayerNorm(pre_norm, dtype) if pre_norm is not None else None,
        post_norm=LayerNorm(post_norm, dtype) if post_norm is not None else None,
    )


def _layer(layer: Any, activation: str, dtype: torch.dtype) -> EncoderLayer:
    own = layer.self_attn
    qkv = (own.qkv,) if hasattr(own, "qkv") else (own.q_proj, own.k_proj, own.v_proj)
    out = own.projection if hasattr(own, "projection") else own.out_proj
    return EncoderLayer(
        attention_norm=LayerNorm(layer.layer_norm1, dtype),
        qkv=FusedLinear(*qkv, dtype=dtype),
        attention_out=FusedLinear(out, dtype=dtype),
        mlp_norm=LayerNorm(layer.layer_norm2, dtype),
        mlp=FusedSequential(
            FusedLinear(layer.mlp.fc1, dtype=dtype, activation=activation), FusedLinear(layer.mlp.fc2, dtype=dtype)
        ),
    )


def check_side(image_size: int, patch: int) -> None:
    """Raise `UsageError` where patches do not fill the image."""
    if image_size % patch:
        raise UsageError(
            f"The image size {image_size} is not a multiple of the patch size {patch}.", "Choose one that is."
        )


def resized_positions(old: Tensor, image_size: int, patch: int) -> Tensor:
    """Embeddings (1 + patches, width) for another image size, bicubic; the class token keeps its own.

    Source: BLIP's original code, `interpolate_pos_embed`.
    """
    check_side(image_size, patch)
    before, after = int((len(old) - 1) ** 0.5), image_size // patch
    grid = old[1:].reshape(1, before, before, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([old[:1], grid[0].permute(1, 2, 0).flatten(0, 1)])


def resize_clip(embeddings: Any, image_size: int) -> None:
    """Another image size for the embeddings of a CLIP vision part, for good."""
    positions = resized_positions(embeddings.position_embedding.weight.data, image_size, embeddings.patch_size)
    embeddings.position_embedding = nn.Embedding.from_pretrained(positions, freeze=False)
    embeddings.position_ids = torch.arange(len(positions)).expand(1, -1)
    embeddings.num_patches, embeddings.num_positions = len(positions) - 1, len(positions)
    embeddings.image_size = image_size


def resize_processor(processor: Any, image_size: int) -> None:
    """Another image size for an image processor."""
    square = {"height": image_size, "width": image_size}
    if getattr(processor, "do_center_crop", False):
        processor.size, processor.crop_size = {"shortest_edge": image_size}, square
    else:
        processor.size = square


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of the row and of the column, [side², width], for the patches of a square image.

    Source: Chen et al. 2021 (MoCo v3), Beyer et al. 2022 ("Better plain ViT baselines for ImageNet-1k"), who
    learn faster from them than from noise. `width` is a multiple of 4.
    """
    rate = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rate
    line = torch.cat([angles.sin(), angles.cos()], -1)
    return torch.cat([line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)], -1).flatten(0, 1)


def set_grid_positions(embeddings: Tensor, side: int) -> None:
    """Position embeddings (1 + side², width) of a new model: from noise, places are learned late or never."""
    embeddings.zero_()[1:] = 0.4 * grid_positions(side, embeddings.shape[1])
