"""Tiny dual encoders and BLIP-2's matching in the Hub's layout; random weights that tell texts and images apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from captune.models.from_scratch import learn_tokenizer

TEXTS = ["a photo of a dog", "two dogs play on a beach", "a lawn with grass on a picture", "a puppy", "a red circle"]
LONGEST = 16
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_SQUARE = {"image_size": 32, "patch_size": 8}
# Vision and text parts of each kind, where they are not those of CLIP, and more of its configuration.
_ALIGN_VISION = {
    "image_size": 32, "in_channels": [32, 16], "out_channels": [16, 32], "kernel_sizes": [3, 3], "strides": [1, 2],
    "num_block_repeats": [1, 1], "expand_ratios": [1, 2], "depthwise_padding": [], "hidden_dim": 32,
    "width_coefficient": 0.5, "depth_coefficient": 1.0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "clip": {"more": {"projection_dim": 16}},
    "siglip": {},
    "siglip2": {"vision": {"patch_size": 8, "num_patches": 16}},
    "metaclip_2": {"more": {"projection_dim": 16}},
    "altclip": {"text": {"project_dim": 16, "max_position_embeddings": 18}, "more": {"projection_dim": 16}},
    "chinese_clip": {"more": {"projection_dim": 16}},
    "aimv2": {"vision": {"num_channels": 3}, "more": {"projection_dim": 16}},
    "groupvit": {"vision": {"depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 2]}},
    "align": {"more": {"projection_dim": 16}},
    "vision-text-dual-encoder": {"more": {"projection_dim": 16}},
    "flava": {},
    "tipsv2": {},
}


def save_dual(folder: Path, kind: str, seed: int = 0) -> str:
    """A random model of a kind of `KINDS`; its texts have at most `LONGEST` tokens."""
    torch.manual_seed(seed)
    tokenizer = learn_tokenizer(TEXTS * 3, 200)
    tokenizer.model_max_length, tokenizer.init_kwargs["padding_side"] = LONGEST, "right"
    # Of FLAVA the whole is published, with the heads of its losses.
    auto = transformers.AutoModelForPreTraining if kind == "flava" else transformers.AutoModel
    model = auto.from_config(_config(kind, tokenizer)).eval()
    _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _image_processor(kind).save_pretrained(folder)
    return str(folder)


def save_blip2(folder: Path) -> str:
    """A random `Blip2ForImageTextRetrieval`, whose texts follow the tokens of an image in its processor."""
    torch.manual_seed(0)
    tokenizer = learn_tokenizer(TEXTS * 3, 200)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST, "use_qformer_text_input": True}
    config = transformers.Blip2Config(
        vision_config={**WIDE, **_SQUARE},
        qformer_config={**WIDE, **text, "encoder_hidden_size": 32, "pad_token_id": tokenizer.pad_token_id},
        num_query_tokens=3, image_text_hidden_size=16, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = transformers.Blip2ForImageTextRetrieval(config).eval()
    torch.nn.init.normal_(model.query_tokens)
    _spread(model)
    model.save_pretrained(folder)
    images = transformers.models.blip.image_processing_pil_blip.BlipImageProcessorPil(size={"height": 32, "width": 32})
    transformers.Blip2Processor(images, tokenizer, num_query_tokens=3).save_pretrained(folder)
    return str(folder)


def _spread(model: torch.nn.Module) -> None:
    """Weights that make texts and images differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
            elif "logit_bias" in name:
                parameter.fill_(-0.7)
            elif "logit_scale" in name:
                parameter.fill_(1.5)


def _config(kind: str, tokenizer: Any) -> Any:
    ids = tokenizer.get_vocab()
    chosen = KINDS[kind]
    vision = {**WIDE, **_SQUARE, **chosen.get("vision", {})}
    if kind == "align":
        vision = _ALIGN_VISION
    text = {**WIDE, "vocab_size": len(tokenizer), "max_position_embeddings": LONGEST, **chosen.get("text", {})}
    text |= {"bos_token_id": ids["[CLS]"], "eos_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
    if kind == "flava":
        heads = {"hidden_size": 32, "init_codebook": False, "return_loss": False}
        more = {"projection_dim": 16, "multimodal_config": WIDE, **heads}
        return transformers.FlavaConfig(image_config=vision, text_config=text, **more)
    if kind == "vision-text-dual-encoder":
        parts = transformers.ViTConfig(**vision), transformers.BertConfig(**text)
        return transformers.VisionTextDualEncoderConfig.from_vision_text_configs(*parts, **chosen["more"])
    return transformers.AutoConfig.for_model(kind, text_config=text, vision_config=vision, **chosen.get("more", {}))


def _image_processor(kind: str) -> Any:
    if kind == "siglip2":
        return transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    if kind == "align":
        return transformers.EfficientNetImageProcessorPil(
            size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}, do_center_crop=True,
            rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False,
        )  # fmt: skip
    square = {"height": 32, "width": 32}
    if kind in ("siglip", "chinese_clip", "vision-text-dual-encoder"):
        return transformers.SiglipImageProcessorPil(size=square)
    if kind == "flava":
        return transformers.FlavaImageProcessorPil(size=square, crop_size=square)
    if kind == "tipsv2":
        return transformers.SiglipImageProcessorPil(size=square, do_normalize=False, resample=2)
    return transformers.CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size=square)
