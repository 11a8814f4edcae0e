"""Attention maps: `transformers`' own numbers, on the right patch, in the right place of the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.images.batches import read_pixels
from captune.inference.explain import caption_tokens, explain, group_words, score_caption, token_steps
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.clip_gpt2 import ClipGpt2
from captune.models.generate import generate
from captune.models.git import Git
from captune.models.layers.losses import on_patches
from noise import noise
from random_weights import LIVELY

TEXTS = ("a red circle", "two dogs play on a bike", "what is it ?", "a man on a bike .") * 3
OPTIONS = GenerationOptions(max_new_tokens=8, num_beams=2)
PICTURE = noise((60, 40), 90)


def lively(family: str) -> Backbone:
    torch.manual_seed(0)
    made = FAMILIES[family].tiny(TEXTS)
    with torch.no_grad():
        LIVELY[family](made.model)
    made.model.eval()
    return made


def plain_cross(decoder: Any, states: torch.Tensor, tokens: list[int]) -> tuple[torch.Tensor, ...]:
    decoder.set_attn_implementation("eager")
    return decoder(
        input_ids=torch.tensor([tokens]), encoder_hidden_states=states, output_attentions=True, use_cache=False
    ).cross_attentions


def plain_blip(backbone: Backbone, pixels: torch.Tensor, prefix: list[int], said: list[int]) -> torch.Tensor:
    states = backbone.model.vision_model(pixel_values=pixels).last_hidden_state
    found = plain_cross(backbone.model.text_decoder, states, [*prefix, *said])
    return torch.stack(found).mean((0, 2))[0]


def plain_clip_gpt2(backbone: Backbone, pixels: torch.Tensor, prefix: list[int], said: list[int]) -> torch.Tensor:
    backbone.model.set_attn_implementation("eager")
    found = backbone.model(
        pixel_values=pixels, decoder_input_ids=torch.tensor([[*prefix, *said]]), output_attentions=True
    )
    return torch.stack(found.cross_attentions).mean((0, 2))[0]


def plain_git(backbone: Backbone, pixels: torch.Tensor, prefix: list[int], said: list[int]) -> torch.Tensor:
    found = backbone.model(
        pixel_values=pixels, input_ids=torch.tensor([[*prefix, *said]]), output_attentions=True, use_cache=False
    ).attentions
    places = found[0].shape[-1] - len(prefix) - len(said)
    return torch.stack(found).mean((0, 2))[0, places:, :places]


def plain_vqa(backbone: Backbone, pixels: torch.Tensor, prefix: list[int], said: list[int]) -> torch.Tensor:
    model, tokenizer = backbone.model, backbone.tokenizer
    states = model.vision_model(pixel_values=pixels).last_hidden_state
    question = torch.tensor([[tokenizer.cls_token_id, *prefix[1:], tokenizer.sep_token_id]])
    read = model.text_encoder(
        input_ids=question,
        attention_mask=torch.ones_like(question),
        encoder_hidden_states=states,
        output_attentions=True,
    )
    answer = plain_cross(model.text_decoder, read.last_hidden_state, [prefix[0], *said])
    return (torch.stack(answer).mean((0, 2)) @ torch.stack(read.cross_attentions).mean((0, 2)))[0]


PLAIN = {"blip": plain_blip, "clip-gpt2": plain_clip_gpt2, "git": plain_git, "blip-vqa": plain_vqa}


@pytest.mark.parametrize("prompt", ["", "a man"])
@pytest.mark.parametrize("family", PLAIN)
def test_maps_are_the_attention_of_plain_transformers(family: str, prompt: str) -> None:
    backbone = lively(family)
    backbone.prompt = prompt
    explained = explain(backbone, PICTURE, OPTIONS)
    pixels = torch.from_numpy(read_pixels(PICTURE, backbone.pixels))[None]
    caption = generate(backbone, backbone.image_features(pixels), OPTIONS)[0][0]
    assert explained.caption == caption.text
    prefix, tokens = caption_tokens(backbone, caption, OPTIONS)
    assert prefix == [backbone.bos_token_id, *backbone.tokenize(prompt)]
    with torch.inference_mode():
        plain = PLAIN[family](backbone, backbone.pixels.normalise(pixels), prefix, list(tokens[:-1]))
    places = on_patches(plain[-len(tokens) :])
    assert places is not None
    words, where = group_words(backbone, tokens)
    assert [word.text for word in explained.words] == words == caption.text.split()
    assert explained.maps.shape == (len(words), 4, 4)
    assert explained.maps.dtype == np.float32
    for word, map_, at in zip(explained.words, explained.maps, where, strict=True):
        mass = places[at].mean(0)
        assert word.on_picture == pytest.approx(float(mass.sum()), abs=1e-4)
        np.testing.assert_allclose(map_, (mass / mass.sum()).numpy(), atol=1e-4)
        assert map_.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tokens_read_again_have_the_confidence_they_were_written_with(family: str) -> None:
    backbone = lively(family)
    backbone.prompt = "a man"
    pixels = torch.from_numpy(read_pixels(PICTURE, backbone.pixels))[None]
    memory = backbone.image_features(pixels)
    for caption in generate(backbone, memory, OPTIONS.model_copy(update={"num_captions": 2}))[0]:
        steps = token_steps(backbone, score_caption(backbone, memory, caption, OPTIONS))
        assert [step.token for step in steps] == list(caption.tokens)
        mean = np.exp(np.mean([np.log(step.probability) for step in steps]))
        assert mean == pytest.approx(caption.confidence, rel=1e-3)
        for step in steps:
            assert len(step.alternatives) == 5
            chances = [one.probability for one in step.alternatives]
            assert chances == sorted(chances, reverse=True)
            assert sum(chances) + step.probability <= 1 + 1e-5


def test_a_decoder_without_captunes_search_is_read_by_transformers() -> None:
    from transformers import BertConfig, BertLMHeadModel, CLIPVisionConfig, CLIPVisionModel, VisionEncoderDecoderModel

    made = lively("clip-gpt2")
    seeing = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**seeing, vocab_size=len(made.tokenizer), is_decoder=True, add_cross_attention=True)
    encoder = CLIPVisionModel(CLIPVisionConfig(**seeing, image_size=32, patch_size=8))
    model: Any = VisionEncoderDecoderModel(encoder=encoder, decoder=BertLMHeadModel(config)).eval()
    for place in (model.config, model.generation_config):
        place.decoder_start_token_id, place.eos_token_id, place.pad_token_id = (
            made.bos_token_id,
            made.eos_token_id,
            made.pad_token_id,
        )
    backbone = ClipGpt2.from_components(model, made.tokenizer, made.processor)
    usual = model.decoder.config._attn_implementation
    explained = explain(backbone, PICTURE, OPTIONS, caption=Caption("a red circle", 0.0))
    assert model.decoder.config._attn_implementation == usual
    prefix, tokens = caption_tokens(backbone, Caption("a red circle", 0.0), OPTIONS)
    pixels = backbone.pixels.normalise(torch.from_numpy(read_pixels(PICTURE, backbone.pixels))[None])
    with torch.inference_mode():
        plain = on_patches(plain_clip_gpt2(backbone, pixels, prefix, list(tokens[:-1])))
    assert plain is not None
    np.testing.assert_allclose(explained.maps[0], (plain[0] / plain[0].sum()).numpy(), atol=1e-4)


@pytest.mark.parametrize(("family", "reason"), [("blip-2", "Q-Former"), ("vlm", "Its language model")])
def test_a_family_without_maps_says_that_it_has_none(family: str, reason: str) -> None:
    with pytest.raises(CaptuneError, match="has no attention to the places of the image for every word") as raised:
        explain(lively(family), PICTURE, OPTIONS)
    assert reason in raised.value.hint


@pytest.mark.parametrize("row", range(4))
def test_a_model_that_looks_at_what_is_bright_puts_the_mass_on_the_bright_patch(row: int) -> None:
    """Cross-attention whose queries and keys are one constant direction times a patch's brightness."""
    column = 3 - row
    backbone = lively("blip")
    model = backbone.model
    seen = torch.zeros(1, 17, 32)
    seen[0, 1 + 4 * row + column, 0] = 1  # the memory says which patch is bright, in its first number
    with torch.no_grad():
        for layer in model.text_decoder.bert.encoder.layer:
            cross = layer.crossattention.self
            for part in (cross.query, cross.key):
                part.weight.zero_()
                part.bias.zero_()
            cross.query.bias.fill_(4.0)
            cross.key.weight[:, 0] = 1.0
    scored = score_caption(backbone, seen, Caption("a red circle", 0.0), OPTIONS)
    assert scored.scores.attention is not None
    maps = on_patches(scored.scores.attention)
    assert maps is not None
    assert (maps[:, row, column] > 0.9).all()


def test_pieces_of_a_word_share_one_map() -> None:
    backbone = lively("blip")
    caption = Caption("bikecircle playdogs", 0.0)
    explained = explain(backbone, PICTURE, OPTIONS, caption=caption)
    assert [word.text for word in explained.words] == ["bikecircle", "playdogs"]
    assert len(backbone.tokenize(caption.text)) > 3
    assert explained.maps.shape[0] == 2


def test_gpt2_words_begin_with_a_space() -> None:
    class Tokenizer:
        texts = (" a", " skate", "board", "er", "'s", " dog", "")

        def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
            return "".join(self.texts[token] for token in tokens)

    backbone: Any = type("Backbone", (), {"tokenizer": Tokenizer()})
    assert group_words(backbone, range(7)) == (["a", "skateboarder's", "dog"], [[0], [1, 2, 3, 4], [5]])


def test_an_empty_caption_has_no_maps() -> None:
    backbone = lively("blip")
    explained = explain(backbone, PICTURE, OPTIONS, caption=Caption("", 0.5, (backbone.eos_token_id,)))
    assert explained.words == ()
    assert explained.maps.shape == (0, 4, 4)
    assert explained.overlay().width > 0


@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
@pytest.mark.parametrize("cut", [False, True])
def test_maps_lie_on_the_upright_picture(tmp_path: Path, orientation: int, cut: bool) -> None:
    """A photo of 120 × 80 stored on its side, before a model that squashes it and one that cuts its middle out."""
    torch.manual_seed(0)
    backbone = Git.tiny(TEXTS)
    if cut:
        backbone.processor.size, backbone.processor.do_center_crop = {"shortest_edge": 32}, True
        backbone.processor.crop_size = {"height": 32, "width": 32}
        backbone = Git.from_components(backbone.model, backbone.tokenizer, backbone.processor)
    backbone.model.eval()
    upright = Image.new("RGB", (120, 80), "white")
    upright.paste((0, 0, 0), (90, 60, 120, 80))
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turn = back[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    (upright if turn is None else upright.transpose(turn)).save(path, exif=exif)
    explained = explain(backbone, path, OPTIONS, caption=Caption("a red circle", 0.0))
    assert explained.picture.size == (120, 80)
    assert np.array_equal(np.asarray(explained.picture), np.asarray(upright))
    # Cut out: the middle 80 × 80 of 120 × 80. (A scaled width of 48 loses 8 pixels of 2.5 on either side.)
    assert explained.box == pytest.approx((20, 0, 100, 80) if cut else (0, 0, 120, 80))
    explained.maps[:] = 0
    explained.maps[0, 3, 3] = 1
    draw_heat_map = np.asarray(explained.overlay(0)).astype(int)
    coloured = np.ptp(draw_heat_map, axis=-1) > 30
    where = np.argwhere(coloured).mean(0)
    right, bottom = explained.box[2:]
    wide, high = (explained.box[2] - explained.box[0]) / 4, 20
    assert where == pytest.approx((bottom - high / 2, right - wide / 2), abs=5)
    assert not coloured[:40].any()


def test_a_folder_of_sheets_and_numbers(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    lively("git").save(model)
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        PICTURE.convert("RGB").save(tmp_path / place / "photo.jpg")
    names = [str(tmp_path / place / "photo.jpg") for place in ("a", "b")]
    rows = list(captune.caption(names, model=str(model), explain=out, max_new_tokens=6))
    assert sorted(path.name for path in out.iterdir()) == [
        "photo-2.explained.json",
        "photo-2.explained.png",
        "photo.explained.json",
        "photo.explained.png",
    ]
    told = json.loads((out / "photo-2.explained.json").read_text(encoding="utf-8"))
    assert told["image"] == names[1]
    assert (told["caption"], told["confidence"]) == (rows[1].captions[0].text, rows[1].captions[0].confidence)
    assert [word["word"] for word in told["words"]] == told["caption"].split()
    assert told["grid"] == [4, 4]
    assert told["box"] == [0, 0, 60, 40]
    for word in told["words"]:
        assert np.sum(word["map"]) == pytest.approx(1, abs=1e-4)
        assert len(word["alternatives"]) == 5
    with Image.open(out / "photo.explained.png") as drawn:
        drawn.load()
        assert drawn.width > 500


def test_a_captioner_explains_any_caption_and_shows_itself(tmp_path: Path) -> None:
    lively("blip").save(tmp_path)
    captioner = captune.Captioner.load(str(tmp_path))
    explained = captioner.explain(PICTURE, "a <b>man</b>", max_new_tokens=6)
    assert explained.caption == "a <b>man</b>"
    assert 0 < explained.confidence < 1
    html = explained._repr_html_()
    assert html.startswith("<img alt=")
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert captioner.explain(PICTURE, max_new_tokens=6).caption == captioner(PICTURE, max_new_tokens=6).text


def test_a_report_shows_where_the_first_model_looked(tiny_data: Path, tmp_path: Path) -> None:
    backbone = lively("blip")
    backbone.save(tmp_path / "model")
    asked: dict[str, Any] = {
        "out": tmp_path / "out", "split": "train", "metrics": ("bleu",), "resamples": 0, "perplexity": False,
        "max_new_tokens": 6, "environment": {},
    }  # fmt: skip
    done = captune.evaluate(tmp_path / "model", tiny_data, explain=3, **asked)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('alt="Maps of the image for the words of:') == 3
    assert "Where the model looked" in page
    rows = json.loads((tmp_path / "out" / "attention" / "sheets.json").read_text())
    said = {record.id: done.captions[done.model][record.id].text for record in done.records}
    assert [row["caption"] for row in rows] == [said[row["id"]] for row in rows]
    with Image.open(tmp_path / "out" / "attention" / rows[0]["file"]) as sheet:
        assert sheet.size[0] > 100
    captune.evaluate(tmp_path / "model", tiny_data, **asked)
    assert "Where the model looked" not in (tmp_path / "out" / "report.html").read_text()
