"""Tiny translation models on disk, in the Hub's own layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

spm = pytest.importorskip("sentencepiece")
WORDS = ("a dog runs in the snow", "two men ride a bike", "the cat sits on a red chair", "ein hund läuft im schnee",
         "zwei männer fahren rad", "die katze sitzt auf einem roten stuhl")  # fmt: skip
TEXTS = ("a dog", "two men ride a red bike in the snow", "the cat sits", "a cat and a dog", "men")
SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip


def pieces(path: Path, **settings: Any) -> list[str]:
    """Train a sentencepiece model into `path`; returns what it knows."""
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 5), model_prefix=str(path.with_suffix("")), vocab_size=90, minloglevel=2,
        hard_vocab_limit=False, **settings,
    )  # fmt: skip
    path.with_suffix(".model").rename(path)
    path.with_suffix(".vocab").unlink()
    known = spm.SentencePieceProcessor(model_file=str(path))
    return [known.id_to_piece(number) for number in range(known.get_piece_size())]


def save(folder: Path, model: Any, **tokenizer: Any) -> str:
    """A model with large random weights, so that its words depend on what it reads, beside its tokenizer."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.mul_(3 if "embed" in name or "shared" in name else 12)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return str(folder)


def marian(folder: Path, *, codes: tuple[str, ...] = (), target: str = "de") -> str:
    from transformers import MarianConfig, MarianMTModel

    folder.mkdir()
    found = pieces(folder / "source.spm")
    shutil.copy(folder / "source.spm", folder / "target.spm")
    words = ["</s>", "<unk>", *(p for p in found if p not in ("<s>", "</s>", "<unk>")), *codes, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    pad = len(words) - 1
    config = MarianConfig(
        vocab_size=len(words), max_position_embeddings=256, pad_token_id=pad, eos_token_id=0, forced_eos_token_id=0,
        decoder_start_token_id=pad, **SMALL,
    )  # fmt: skip
    torch.manual_seed(0)
    return save(folder, MarianMTModel(config), tokenizer_class="MarianTokenizer", source_lang="en", target_lang=target)


def m2m100(folder: Path) -> str:
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder.mkdir()
    found = ["<s>", "<pad>", "</s>", "<unk>", *pieces(folder / "sentencepiece.bpe.model", model_type="bpe")[3:]]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(found)}))
    known = M2M100Tokenizer.from_pretrained(str(folder))
    size = max(known.lang_code_to_id.values()) + 9
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=size, max_position_embeddings=256, **SMALL))
    return save(folder, model, tokenizer_class="M2M100Tokenizer")


def madlad(folder: Path) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir()
    found = pieces(
        folder / "spiece.model", user_defined_symbols=["<2de>", "<2fr>"], unk_id=0, pad_id=1, eos_id=2, bos_id=-1
    )
    config = T5Config(
        vocab_size=len(found), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, pad_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return save(folder, T5ForConditionalGeneration(config), tokenizer_class="T5Tokenizer", extra_ids=0)


KINDS = {"marian": marian, "m2m100": m2m100, "madlad": madlad}
