"""Random weights made so large that images decide what is said, and an end token that fires now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _blip(model: Any) -> None:
    seeing = ("vision", "crossattention.output", "crossattention.self.value")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embeddings" not in name:
            parameter.mul_(10 if any(part in name for part in seeing) else 6)
    model.text_decoder.bert.embeddings.word_embeddings.weight.mul_(5)
    model.text_decoder.cls.predictions.bias[model.config.text_config.sep_token_id] += 1


def _vision_encoder_decoder(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embedding" not in name and ".wte" not in name and ".wpe" not in name:
            parameter.mul_(12 if "encoder." in name or "crossattention" in name or "proj" in name else 5)
    if model.config.decoder.model_type == "gpt2":
        words = model.decoder.transformer.wte.weight
        words.mul_(5)
        words[model.config.eos_token_id] *= 1.5


def _git(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embeddings" not in name:
            parameter.mul_(14 if "image_encoder" in name or "visual_projection" in name else 12)
    model.git.embeddings.word_embeddings.weight.mul_(8)
    model.output.bias[model.config.eos_token_id] += 1


def _blip2(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name and "shared" not in name:
            parameter.mul_(5 if name.startswith("language_model") else 12)


def _blip_vqa(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embeddings" not in name:
            parameter.mul_(8 if "text_encoder" in name or "vision" in name else 6)
    for part in (model.text_encoder, model.text_decoder.bert):
        part.embeddings.word_embeddings.weight.mul_(5)
    model.text_decoder.cls.predictions.bias[model.config.text_config.sep_token_id] += 1


def _vlm(model: Any) -> None:
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(8)
    model.get_output_embeddings().weight[model.config.text_config.eos_token_id] *= 2


def _florence2(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed" not in name and "shared" not in name:
            parameter.mul_(4 if "vision" in name else 10)
    model.get_input_embeddings().weight.mul_(5)


LIVELY: dict[str, Callable[[Any], None]] = {
    "blip": _blip,
    "blip-vqa": _blip_vqa,
    "clip-gpt2": _vision_encoder_decoder,
    "git": _git,
    "blip-2": _blip2,
    "vlm": _vlm,
    "florence-2": _florence2,
}
