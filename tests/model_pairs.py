"""A vision and a text checkpoint on disk, in the Hub's layout, to be joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch


def save_clip(folder: Path) -> None:
    """A whole CLIP that sees 32 × 32 pixels."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    narrow = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    config = CLIPConfig(
        vision_config={**narrow, "image_size": 32, "patch_size": 8}, text_config={**narrow, "vocab_size": 99}
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def save_gpt2(folder: Path, texts: Sequence[str]) -> None:
    """A GPT-2 with its own kind of tokenizer, learned from `texts`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(texts * 4, vocab_size=320, min_frequency=2, special_tokens=["<|endoftext|>"])
    folder.mkdir()
    learner.save_model(str(folder))
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    ends = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=2, n_positions=64, bos_token_id=ends, eos_token_id=ends
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
