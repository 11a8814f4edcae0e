"""Tiny checkpoints of vision and text parts that are joined to captioners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from captune.models.backbone import Backbone
from captune.models.loading.loader import pair_backbone
from model_pairs import save_gpt2

TEXTS = ("a red circle", "two dogs play on a bike", "a man", "two red dogs", "a circle .", "a man on a bike")


def vision_part(kind: str, folder: Path) -> Path:
    """A tiny checkpoint of another kind of vision part, with its own way to prepare pictures."""
    import transformers

    narrow = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    square = {"height": 32, "width": 32}
    if kind == "vit":
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        model: Any = transformers.ViTModel(transformers.ViTConfig(**narrow, intermediate_size=64))
        processor: Any = ViTImageProcessorPil(size=square)
    elif kind == "dinov2":
        from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

        model = transformers.Dinov2Model(transformers.Dinov2Config(**narrow, mlp_ratio=2))
        processor = BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=square)
    else:
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        words = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
        config = transformers.SiglipConfig(
            vision_config={**narrow, "intermediate_size": 64}, text_config={**words, "intermediate_size": 64}
        )
        model, processor = transformers.SiglipModel(config), SiglipImageProcessorPil(size=square)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def joined(kind: str, folder: Path) -> Backbone:
    """A vision part of that kind and a GPT-2, its weights so large that images decide what is said."""
    save_gpt2(folder / "gpt2", TEXTS)
    name = f"{vision_part(kind, folder / kind)}+{folder / 'gpt2'}"
    backbone = pair_backbone(name, seed=1, image_size=None)
    backbone.model.eval()
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return backbone
