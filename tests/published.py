"""Models as they are published: their own configuration and tokenizer files, with small random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

# What makes a model small; vocabularies and ids stay as they were published.
NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def published(hub: Path, name: str, folder: Path) -> Path:
    """A model of the files in `hub`/`name` with small random weights, written to `folder`."""
    shutil.copytree(hub / name, folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    folder.chmod(0o755)
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    SMALL[name](folder)
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Change values of a JSON file; None takes one out."""
    found = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def _blip(folder: Path) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration

    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(NARROW, encoder_hidden_size=32, projection_dim=32)
    config["vision_config"].update(NARROW, patch_size=96, initializer_range=0.05)
    (folder / "config.json").write_text(json.dumps(config))
    _weights(BlipForConditionalGeneration(BlipConfig.from_pretrained(folder)), folder)


def _blip2(folder: Path) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(
        hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2
    )
    config["vision_config"].update(NARROW, patch_size=56, initializer_range=0.05)
    config["qformer_config"].update(NARROW, encoder_hidden_size=32)
    (folder / "config.json").write_text(json.dumps(config))
    _weights(Blip2ForConditionalGeneration(Blip2Config.from_pretrained(folder)), folder)


def _gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = json.loads((folder / "config.json").read_text())
    config.update(n_embd=32, n_head=2, n_layer=2)
    (folder / "config.json").write_text(json.dumps(config))
    _weights(GPT2LMHeadModel(GPT2Config(**{k: v for k, v in config.items() if k != "quantization_config"})), folder)


def _clip(folder: Path) -> None:
    """Only its tokenizer is kept here; configuration and pixels are those of the published model, by their defaults."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = CLIPConfig(
        vision_config={**NARROW, "patch_size": 32}, text_config={**NARROW, "vocab_size": 49408}, projection_dim=32
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


SMALL = {"blip-image-captioning-base": _blip, "blip2-opt-2.7b": _blip2, "gpt2": _gpt2, "clip-vit-base-patch32": _clip}


def _weights(model: torch.nn.Module, folder: Path) -> None:
    """Larger than they are made, so that images and words matter; the configuration stays as it was published."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    config = (folder / "config.json").read_text()
    generation = folder / "generation_config.json"
    before = generation.read_text() if generation.is_file() else None
    model.save_pretrained(folder)
    (folder / "config.json").write_text(config)
    generation.write_text(before) if before is not None else generation.unlink(missing_ok=True)
