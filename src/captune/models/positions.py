"""Where a patch lies: position embeddings of square pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from captune.core.errors import UsageError


def check_side(image_size: int, patch: int) -> None:
    """Raise `UsageError` where patches do not fill the picture."""
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
    """The same for what prepares the pictures."""
    square = {"height": image_size, "width": image_size}
    if getattr(processor, "do_center_crop", False):
        processor.size, processor.crop_size = {"shortest_edge": image_size}, square
    else:
        processor.size = square


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of the row and of the column, [side², width], for the patches of a square picture.

    Source: Chen et al. 2021 (MoCo v3), Beyer et al. 2022 ("Better plain ViT baselines for ImageNet-1k"), who
    learn faster from them than from noise. `width` is a multiple of 4.
    """
    rate = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rate
    line = torch.cat([angles.sin(), angles.cos()], -1)
    return torch.cat([line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)], -1).flatten(0, 1)
