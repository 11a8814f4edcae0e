"""Prompts as messages: system prompt, prefill, thinking, and captions that were cut."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import captune
from captune.captions.quality import flags_of
from captune.captions.row import CaptionRow, row_of
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.models.blip import Blip
from captune.models.generate import generate
from captune.models.vlm import Vlm
from captune.models.vlm.chat import without_thinking
from tiny_vlms import lively

GREEDY = GenerationOptions(num_beams=1, max_new_tokens=8)


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return lively("qwen2_5_vl")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 60), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_a_system_prompt_is_a_message_before_the_prompt(vlm: Vlm) -> None:
    options = GREEDY.model_copy(update={"system_prompt": "a red circle"})
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "a red circle"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "two dogs"}]},
    ]
    text = vlm.processor.apply_chat_template(messages, add_generation_prompt=True)
    assert vlm.codec.prefix("two dogs", options) == vlm.tokenize(text)
    assert vlm.codec.prefix("two dogs", options) != vlm.codec.prefix("two dogs", GREEDY)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{% if messages[0]['role'] == 'user' %}<|image_pad|>{% else %}<|image_pad|>{% endif %}", "leaves a system"),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}", "no system"),
    ],
)
def test_a_template_without_a_system_prompt_is_an_error(template: str, error: str, vlm: Vlm) -> None:
    own = vlm.processor.chat_template
    try:
        vlm.processor.chat_template = template
        with pytest.raises(CaptuneError, match=error) as refused:
            vlm.codec.prefix("two dogs", GREEDY.model_copy(update={"system_prompt": "a red circle"}))
    finally:
        vlm.processor.chat_template = own
    assert "--prompt" in refused.value.hint


def test_a_caption_begins_with_its_prefill_and_is_what_transformers_writes_behind_it(vlm: Vlm) -> None:
    options = GREEDY.model_copy(update={"prefill": "a man on"})
    image = Image.new("RGB", (80, 60), "red")
    with torch.inference_mode():
        features = vlm.encode([image])
        (caption,) = generate(vlm, features, options)[0]
        vlm.own_search = False
        (theirs,) = generate(vlm, features, options)[0]
        vlm.own_search = True
    assert caption.text.startswith("a man on")
    assert (caption.text, caption.tokens) == (theirs.text, theirs.tokens)
    assert caption.text != "a man on"


@pytest.mark.parametrize("reference", ["a bike", "a man on a bike"])
def test_a_reference_is_learned_behind_the_prefill(vlm: Vlm, reference: str) -> None:
    codec = replace(vlm.codec, prefill="a man on", system_prompt="a red circle")
    encoded = codec.reference(reference, "two dogs", 20)
    assert list(encoded.tokens[: encoded.prompt_length]) == codec.start("two dogs")
    assert vlm.decode(encoded.tokens[encoded.prompt_length :]) == "a bike"
    assert encoded.tokens[-1] == vlm.eos_token_id


def test_a_saved_model_has_its_system_prompt_and_prefill(image: Path, tmp_path: Path) -> None:
    vlm = lively("qwen2_5_vl")
    vlm.generation = {"num_beams": 1, "max_new_tokens": 4, "system_prompt": "a red circle", "prefill": "two dogs"}
    vlm.save(tmp_path / "model")
    captioner = captune.Captioner.load(str(tmp_path / "model"))
    assert captioner(image).text.startswith("two dogs")
    assert captioner.model.codec.system_prompt == "a red circle"
    assert not captioner(image, prefill="").text.startswith("two dogs")


@pytest.mark.parametrize("option", ["system_prompt", "prefill"])
def test_families_whose_captions_continue_their_prompt_have_neither(option: str) -> None:
    with pytest.raises(UsageError, match="chat template") as refused:
        Blip.tiny().codec.prefix("two dogs", GREEDY.model_copy(update={option: "a photo"}))
    assert "--prompt" in refused.value.hint


def test_a_caption_that_answers_does_not_begin_with_its_prompt(vlm: Vlm) -> None:
    with pytest.raises(UsageError, match="answer their prompt") as refused:
        vlm.codec.prefix("two dogs", GREEDY.model_copy(update={"prompt_in_caption": True}))
    assert "--prefill" in refused.value.hint


def test_a_template_that_can_think_is_told_not_to(vlm: Vlm) -> None:
    processor = vlm.processor
    template = processor.chat_template
    thinks = "{% if add_generation_prompt and enable_thinking is not false %}<think>{% endif %}"
    try:
        processor.chat_template = template + thinks
        assert "<think>" not in vlm.template.render("two dogs")
        assert "<think>" in processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}]}], add_generation_prompt=True
        )
    finally:
        processor.chat_template = template


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("<think>Is it red?</think> a red circle", "a red circle"),
        ("<think></think>a red circle", "a red circle"),
        ("<think>Is it red? It may", ""),
        ("a red circle", "a red circle"),
    ],
)
def test_thoughts_are_no_caption(text: str, caption: str) -> None:
    assert without_thinking(text) == caption


def test_an_image_whose_model_still_thinks_is_an_error(vlm: Vlm, image: Path, tmp_path: Path) -> None:
    vlm.save(tmp_path / "model")
    captioner = captune.Captioner.load(str(tmp_path / "model"), max_new_tokens=3, prefill="<think> a red")
    ((_, found),) = captioner.stream([("red.png", str(image))])
    assert isinstance(found, CaptuneError)
    assert "still thinking" in str(found)


def test_thoughts_that_the_template_begins_are_none_of_the_caption(vlm: Vlm) -> None:
    own = vlm.processor.chat_template
    thoughts = vlm.tokenize("Is it red?</think>")
    try:
        vlm.processor.chat_template = f"{own}<think>"
        assert vlm.codec.text(thoughts, None, GREEDY) == ""
        assert vlm.codec.text(thoughts[:-3], None, GREEDY) == ""
        assert vlm.codec.text([*thoughts, *vlm.tokenize(" a red circle")], None, GREEDY) == "a red circle"
    finally:
        vlm.processor.chat_template = own


def test_a_caption_without_an_end_is_cut(vlm: Vlm) -> None:
    with torch.inference_mode():
        features = vlm.encode([Image.new("RGB", (80, 60), "red")])
        (short,) = generate(vlm, features, GREEDY.model_copy(update={"max_new_tokens": 2}))[0]
    assert short.cut
    assert "cut" in flags_of(short)
    row = CaptionRow("red.png", (short,), "ok", None, "model")
    assert row.to_json()["cut"] is True
    assert row_of(row.to_json(), "").captions[0].cut
    whole = Caption("a red circle", 0.5)
    assert "cut" not in flags_of(whole)
    assert "cut" not in CaptionRow("red.png", (whole,), "ok", None, "").to_json()


def test_a_published_model_writes_up_to_256_tokens_greedily(vlm: Vlm) -> None:
    """Thirty tokens would cut its captions, and three beams would take three times as long."""
    loaded = Vlm.of_processor(vlm.model, vlm.processor)
    assert loaded.generation == {"max_new_tokens": 256, "num_beams": 1}


def test_a_question_stands_in_its_place(vlm: Vlm) -> None:
    prompt = vlm.prompt
    try:
        vlm.prompt = "Answer in one word: {question}"
        assert "Answer in one word: What is red?" in vlm.tokenizer.decode(
            vlm.codec.start(vlm.prompt_for("What is red?"))
        )
    finally:
        vlm.prompt = prompt
