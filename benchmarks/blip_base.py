"""BLIP base at 384 pixels with random weights that look at the image, and what the machine could do at most."""

from __future__ import annotations

import time

import torch

from captune.models.backbone import PixelSettings
from captune.models.blip import Blip
from captune.models.from_scratch import learn_tokenizer

# Billions of multiplications and additions: the vision part and the cross-attention's keys and values of an image,
# a token of a caption.
VISION, CROSS, TOKEN = 111.0, 16.3, 0.27
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
START, END, PAD = 30522, 102, 0


def blip_base(dtype: torch.dtype) -> Blip:
    """BlipConfig's own numbers, but heads and vision weights as the published model has them."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(0)
    config = BlipConfig(
        vision_config={"initializer_range": 0.02},
        text_config={"num_attention_heads": 12, "bos_token_id": START, "sep_token_id": END, "pad_token_id": PAD},
    )
    model = BlipForConditionalGeneration(config).eval().to(dtype)
    return Blip(model, learn_tokenizer(["a man"] * 4, 200), PixelSettings(384, mean=(0.5,) * 3, std=(0.5,) * 3))


def peak(dtype: torch.dtype, size: int = 2048, repeats: int = 8) -> float:
    """Billions of operations a second that the machine reaches in one large packed product."""
    rows, weight = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    best = 0.0
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.perf_counter()
            torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
            best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best
