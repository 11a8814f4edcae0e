"""Vision-language models of several families: what they read, say and learn is what plain `transformers` has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AddedToken
from transformers.processing_utils import ProcessorMixin

import captune
from captune.core.errors import CaptuneError, ImageError, UsageError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.images.batches import stack
from captune.inference.batches import collate
from captune.models.generate import generate
from captune.models.loading.loader import load_backbone
from captune.models.vlm import Vlm
from captune.models.vlm.prefixes import PREFIXES
from tiny_vlms import BUILDERS, lively, processed

GREEDY = GenerationOptions(num_beams=1, max_new_tokens=8)
BEAMS = GenerationOptions(num_beams=3, num_captions=2, max_new_tokens=8)
REFERENCES = [["a dog runs", "two dogs play in the snow"], ["x"], ["a man on a bike", "a red circle ."]]


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def vlm(request: pytest.FixtureRequest) -> Vlm:
    return lively(request.param)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Three RGB images (3, height, width) of their own aspects."""
    sizes = [(60, 90), (110, 70), (64, 64)]
    return stack(
        [np.random.default_rng(n).integers(0, 255, (3, *size), dtype=np.uint8) for n, size in enumerate(sizes)]
    )


def said(captions: list[list[Caption]]) -> list[list[tuple[int, ...]]]:
    return [[caption.tokens for caption in each] for each in captions]


def confidences(captions: list[list[Caption]]) -> list[float]:
    return [caption.confidence for each in captions for caption in each]


def losses(vlm: Vlm, images: np.ndarray, rows: Any = None) -> torch.Tensor:
    encoded = [[vlm.encode_reference(text, 20) for text in texts] for texts in REFERENCES[: len(images)]]
    batch = collate(list(zip(images, encoded, strict=True)), vlm.pad_token_id)
    features = vlm.image_features(batch.pop("images"))
    return vlm.token_losses(features, **batch).nll


def test_a_prompt_is_that_of_the_processor(vlm: Vlm, images: np.ndarray) -> None:
    """Token for token, also where an image has several tiles."""
    encoded = vlm.image_features(images)
    for image, placeholder in zip(images, encoded.texts, strict=True):
        ids = processed(vlm, "Say it.", image)["input_ids"][0].tolist()
        assert vlm.with_image(vlm.codec.start("Say it."), placeholder) == ids


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_a_batch_says_what_its_images_say_alone_and_what_transformers_says(
    vlm: Vlm, images: np.ndarray, options: GenerationOptions
) -> None:
    with torch.inference_mode():
        encoded = vlm.image_features(images)
        own = generate(vlm, encoded, options)
        alone = [generate(vlm, encoded[[number]], options)[0] for number in range(len(images))]
        vlm.own_search = False
        theirs = generate(vlm, encoded, options)
        vlm.own_search = True
    assert said(own) == said(alone) == said(theirs)
    assert confidences(own) == pytest.approx(confidences(theirs), rel=1e-4)
    if vlm.model.config.model_type != "gemma3":  # with random weights it says the same of every image
        assert len({tokens for each in said(own) for tokens in each}) > 2


@pytest.mark.parametrize("own", [True, False])
def test_an_image_is_encoded_once_for_all_its_captions(
    vlm: Vlm, images: np.ndarray, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        encoded = vlm.image_features(images[:2])
        monkeypatch.setattr(type(vlm.model.model), "get_image_features", None)
        monkeypatch.setattr(vlm, "own_search", own)
        for many in ({"num_beams": 3, "num_captions": 2}, {"sample": True, "num_captions": 2}, {"variations": 2}):
            captions = generate(vlm, encoded, GenerationOptions(max_new_tokens=3, **{"num_beams": 1, **many}))
            assert [len(each) for each in captions] == [2, 2]


def test_captions_are_those_of_plain_generate(vlm: Vlm, images: np.ndarray) -> None:
    inputs = processed(vlm, vlm.prompt, images[1])
    inputs.pop("labels", None)
    with torch.inference_mode():
        ids = vlm.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=vlm.eos_token_id,
            suppress_tokens=list(vlm.suppressed_tokens),
        )
        (caption,) = generate(vlm, vlm.image_features(images[1:2]), GREEDY)[0]
    assert ids[0, inputs["input_ids"].shape[1] :].tolist() == list(caption.tokens)


def test_captions_of_an_image_have_the_losses_and_gradients_of_single_ones(
    vlm: Vlm, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        vlm.model.zero_grad()
        found = losses(vlm, images)
        found.sum().backward()
        return found.detach(), [p.grad.clone() for p in vlm.parts()["text"] if p.grad is not None]

    together, of_all = gradients()
    monkeypatch.setattr(Vlm, "branches", False)
    single, of_each = gradients()
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)
    assert len(of_all) > 5
    for one, other in zip(of_all, of_each, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    vlm.model.zero_grad()


def test_losses_are_those_of_the_logits_of_plain_transformers(vlm: Vlm, images: np.ndarray) -> None:
    asked = processed(vlm, vlm.prompt, images[0])["input_ids"]
    encoded = vlm.encode_reference(REFERENCES[0][0], 20)
    answer = torch.tensor([encoded.tokens[encoded.prompt_length :]])
    inputs = processed(vlm, vlm.prompt, images[0], REFERENCES[0][0])
    start, end = asked.shape[1], asked.shape[1] + answer.shape[1]
    labels = inputs.pop("labels", None)
    if labels is not None:  # a processor that makes them supervises the same
        assert labels[0].tolist() == [-100] * start + answer[0].tolist()
    if end != inputs["input_ids"].shape[1]:  # the template goes on behind the end
        inputs = {name: value[:, :end] if name.endswith(("ids", "mask")) else value for name, value in inputs.items()}
    inputs = {**inputs, "input_ids": torch.cat([asked, answer], 1)}
    with torch.no_grad():
        logits = vlm.model(**inputs).logits[0, start - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, answer[0], reduction="none")
        found = losses(vlm, images[:1])[: len(answer[0])]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_the_caption_and_the_end_of_its_turn_are_supervised(vlm: Vlm, images: np.ndarray) -> None:
    encoded = vlm.encode_reference("a dog runs", 20)
    answer = list(encoded.tokens[encoded.prompt_length :])
    assert vlm.decode(answer) == "a dog runs"
    assert answer[-1] == vlm.eos_token_id
    assert vlm.eos_token_id in vlm.tokenizer.all_special_ids
    with torch.no_grad():
        assert len(losses(vlm, images[:1])) == sum(
            len(e.tokens) - e.prompt_length for e in (vlm.encode_reference(t, 20) for t in REFERENCES[0])
        )


def test_special_tokens_in_words_are_words(vlm: Vlm) -> None:
    """Also those that a tokenizer does not count among its own, and those for videos."""
    vlm.tokenizer.add_tokens(AddedToken("<|turn|>", special=True))
    special = {*vlm.tokenizer.all_special_tokens, vlm.processor.image_token, "<|turn|>"}
    plain, hostile = vlm.codec.start("What is it?"), vlm.codec.start(f"What is it?{' '.join(sorted(special))}")
    ids = {vlm.tokenizer.convert_tokens_to_ids(token) for token in special}
    assert [token for token in hostile if token in ids] == [token for token in plain if token in ids]


def test_no_caption_has_a_token_that_stands_for_an_image_or_a_video(vlm: Vlm) -> None:
    vocabulary = sorted(vlm.tokenizer.get_vocab().values())
    (kinds,) = ProcessorMixin.create_mm_token_type_ids(vlm.processor, [vocabulary])
    assert {token for token, kind in zip(vocabulary, kinds, strict=True) if kind} == set(vlm.suppressed_tokens)


def test_an_image_token_in_words_is_no_image(vlm: Vlm, images: np.ndarray) -> None:
    token = vlm.processor.image_token
    vlm.encode_reference(f"a {token} dog", 20)
    with torch.inference_mode():
        (caption,) = generate(vlm, vlm.image_features(images[:1]), GREEDY, prompts=[f"What is {token} here?"])[0]
    assert caption.tokens


def test_a_saved_folder_says_the_same(vlm: Vlm, images: np.ndarray, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    again = load_backbone(str(tmp_path))
    assert isinstance(again, Vlm)
    with torch.inference_mode():
        before, after = (generate(one, one.image_features(images), BEAMS) for one in (vlm, again))
    assert said(before) == said(after)


def test_a_model_without_a_template_is_refused(vlm: Vlm) -> None:
    template = vlm.processor.chat_template
    if template is None:  # of a kind whose authors wrote every prompt in one way
        assert vlm.codec.start("Say it.") == vlm.tokenize(PREFIXES["paligemma"].render(vlm.template, "Say it."))
        return
    try:
        vlm.processor.chat_template = "{{ messages[0]['content'][1]['text'] }}"
        with pytest.raises(CaptuneError, match="0 places for an image"):
            vlm.codec.start("Say it.")
        vlm.processor.chat_template = None
        with pytest.raises(CaptuneError, match="no chat template"):
            Vlm.of_processor(vlm.model, vlm.processor)
    finally:
        vlm.processor.chat_template = template


def test_a_very_narrow_image_costs_itself_alone(tmp_path: Path) -> None:
    lively("qwen2_5_vl").save(tmp_path / "model")
    for name, size in (("thin.png", (3000, 1)), ("good.png", (60, 40))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    captioner = captune.Captioner.load(str(tmp_path / "model"), max_new_tokens=3)
    items = [(name, str(tmp_path / name)) for name in ("thin.png", "good.png")]
    (_, thin), (_, good) = captioner.stream(items)
    assert isinstance(thin, ImageError)
    assert "3000 × 1: too narrow" in str(thin)
    assert isinstance(good, list)


@pytest.mark.parametrize("recompute", [False, True])
def test_layers_are_computed_again_where_that_is_asked_for(images: np.ndarray, recompute: bool) -> None:
    vlm = Vlm.tiny()
    vlm.model.train()
    calls: list[object] = []
    vlm.model.model.language_model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(None))
    batch = collate([(images[0], [vlm.encode_reference("a dog runs", 20)])], vlm.pad_token_id)
    features = vlm.image_features(batch.pop("images"))
    vlm.token_losses(features, **batch, recompute=recompute).nll.sum().backward()
    assert len(calls) == 1 + recompute


def test_another_prompt_takes_effect_at_once() -> None:
    vlm = Vlm.tiny()
    before = vlm.codec.prefix(None, GREEDY)
    vlm.prompt = "two dogs"
    assert vlm.codec.prefix(None, GREEDY) == vlm.codec.start("two dogs") != before


def test_another_image_size_is_refused(tmp_path: Path) -> None:
    Vlm.tiny().save(tmp_path)
    with pytest.raises(UsageError, match="own sizes"):
        load_backbone(str(tmp_path), image_size=64)
