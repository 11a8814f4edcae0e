"""Published vision-language models' configurations, tokenizers and templates, with small random weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import captune
from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.inference.batches import collate
from captune.models.generate import generate
from captune.models.loading.loader import load_backbone
from captune.models.vlm import Vlm

pytestmark = pytest.mark.real

MESSAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the photo."}]}]


def _cut(config: Any) -> None:
    """The same kinds of layers, few and narrow; vocabulary and ids as published."""
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 32, 64, 2
    text.num_attention_heads = text.num_key_value_heads = 4
    text.head_dim = 8
    if config.model_type == "qwen2_5_vl":
        text.layer_types = text.layer_types[:2]
        text.rope_parameters = {**text.rope_parameters, "mrope_section": [2, 1, 1]}
        vision.hidden_size, vision.intermediate_size, vision.depth, vision.num_heads = 32, 64, 2, 2
        vision.out_hidden_size, vision.fullatt_block_indexes = 32, [1]
    else:
        vision.hidden_size, vision.intermediate_size = 32, 64
        vision.num_hidden_layers = vision.num_attention_heads = 2


@pytest.fixture(params=["Qwen2.5-VL-7B-Instruct", "llava-1.5-7b-hf"])
def published(request: pytest.FixtureRequest, hub: Path, tmp_path: Path) -> Path:
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = tmp_path / "model"
    shutil.copytree(hub / request.param, folder)
    config = AutoConfig.from_pretrained(folder)
    _cut(config)
    config.dtype = torch.float32
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).float()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


def test_a_published_layout_captions_learns_and_is_saved(published: Path, test_data: Path, tmp_path: Path) -> None:
    photos = sorted((test_data / "flickr8k" / "original").glob("*.jpg"))[:2]
    vlm = load_backbone(str(published))
    assert isinstance(vlm, Vlm)
    text = vlm.processor.apply_chat_template(MESSAGE, add_generation_prompt=True)
    prefix = vlm.codec.start("Describe the photo.")
    assert vlm.tokenizer.decode(prefix) == vlm.tokenizer.decode(vlm.tokenize(text))
    images = [captune.Captioner.load(str(published)).read(str(photo)) for photo in photos]
    with torch.inference_mode():
        encoded = vlm.image_features(images)
        theirs = vlm.processor(
            text=[text], images=[[Image.open(photos[0]).convert("RGB")]], return_tensors="pt", add_special_tokens=False
        )
        assert vlm.with_image(prefix, encoded.texts[0]) == theirs["input_ids"][0].tolist()
        said = generate(vlm, encoded, GenerationOptions(num_beams=2, max_new_tokens=6))
    assert all(each[0].tokens for each in said)
    references = [[vlm.encode_reference(text, 20) for text in ("A dog runs.", "Snow")], [vlm.encode_reference("X", 9)]]
    batch = collate(list(zip(images, references, strict=True)), vlm.pad_token_id)
    vlm.freeze(["vision", "bridge"])
    losses = vlm.token_losses(vlm.image_features(batch.pop("images")), **batch)
    losses.nll.sum().backward()
    assert torch.isfinite(losses.nll).all()
    vlm.save(tmp_path / "saved")
    again = captune.Captioner.load(str(tmp_path / "saved"))
    assert again(str(photos[0]), num_beams=2, max_new_tokens=6).tokens == said[0][0].tokens


def test_code_of_a_repository_is_refused(hub: Path) -> None:
    with pytest.raises(CaptuneError):
        load_backbone(str(hub / "Florence-2-base"))


def test_the_format_of_florence_2s_authors_is_refused_with_the_name_of_the_other_one(hub: Path) -> None:
    with pytest.raises(CaptuneError, match="authors' own code") as raised:
        load_backbone(str(hub / "Florence-2-base"))
    assert "florence-community/Florence-2-base." in raised.value.hint
