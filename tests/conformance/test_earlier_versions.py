"""Saved folders name things as transformers 4.46 and later read them; tools/open-with opens them there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from captune.export.card import OPENED_WITH, CardFacts, card
from captune.export.convert import match, read_states
from captune.models import FAMILIES
from captune.models.loading.pretrained import readable_by_earlier
from captune.models.weights import WEIGHTS, opened
from scripts import ROOT

PROCESSORS = ("BlipImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor", "GotOcr2ImageProcessor")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_saved_folder_says_what_earlier_versions_read(family: str, tmp_path: Path) -> None:
    made = FAMILIES[family].tiny()
    made.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    named = family in ("vlm", "florence-2")  # tokens with names of their own
    assert config["additional_special_tokens"] == ([] if named else ["[DEC]", "[ENC]"])
    assert not {"extra_special_tokens", "backend", "is_local"} & set(config)
    pixels = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert pixels["image_processor_type"] in PROCESSORS
    processor = tmp_path / "processor_config.json"
    assert not processor.exists() or "image_processor" not in json.loads(processor.read_text())
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(again.all_special_tokens) == sorted(made.tokenizer.all_special_tokens)
    assert again.get_vocab() == made.tokenizer.get_vocab()


def test_the_output_layer_of_blip_is_saved_and_is_the_embedding_when_loaded(tmp_path: Path) -> None:
    made = FAMILIES["blip"].tiny()
    made.save(tmp_path)
    with opened([tmp_path / WEIGHTS]) as found:
        output = found["text_decoder.cls.predictions.decoder.weight"][:]
    assert torch.equal(output, made.model.text_decoder.bert.embeddings.word_embeddings.weight)
    decoder = FAMILIES["blip"].load(tmp_path).model.text_decoder
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight


def test_the_vision_part_of_clip_has_the_names_of_4(tmp_path: Path) -> None:
    FAMILIES["clip-gpt2"].tiny().save(tmp_path / "first")
    loaded = FAMILIES["clip-gpt2"].load(tmp_path / "first")
    loaded.save(tmp_path / "again")
    for folder in (tmp_path / "first", tmp_path / "again"):
        with opened([folder / WEIGHTS]) as found:
            seeing = [name for name in found if name.startswith("encoder.")]
        assert seeing
        assert all(name.startswith("encoder.vision_model.") for name in seeing)
        assert not any("vision_model.vision_model" in name for name in seeing)
    wanted = loaded.model.state_dict()
    matched = match(read_states(tmp_path / "again" / WEIGHTS), wanted)
    assert matched.count == len(matched.tensors)


@pytest.mark.parametrize(("model", "cleaned"), [("BPE", False), ("WordPiece", True)])
def test_spaces_are_taken_out_only_where_5_does(model: str, cleaned: bool, tmp_path: Path) -> None:
    config = {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": model}}))
    readable_by_earlier(tmp_path)
    found = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert found == {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": cleaned}


def test_the_card_and_the_page_name_the_versions_that_were_opened() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert "| " + " | ".join(OPENED_WITH) + " |" in page
    assert f"transformers {', '.join(OPENED_WITH)};" in card(CardFacts("mine/captioner", "blip"))
