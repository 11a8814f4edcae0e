"""captune's own search writes the tokens that `transformers` writes, for every family that has a `Decoder`."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.decoding.rows import Generated
from captune.decoding.sampling import Sampler
from captune.decoding.torch_ops import TorchOps
from captune.inference.pieces import stream_text
from captune.inference.torch_model import TorchModel
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.generate import generate, search_tokens, transformers_search
from random_weights import LIVELY

PICTURES = 48
SEARCHED = sorted(set(LIVELY) - {"blip-2", "blip-vqa", "florence-2"})
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "greedy, repetition": {"num_beams": 1, "repetition_penalty": 1.4},
    "greedy, phrases": {"num_beams": 1, "no_repeat_ngram_size": 2},
    "greedy, words": {"num_beams": 1, "no_repeat_ngram_size": 1},
    "greedy, not too short": {"num_beams": 1, "min_new_tokens": 6},
    "greedy, one token": {"num_beams": 1, "max_new_tokens": 1},
    "2 beams": {"num_beams": 2},
    "3 beams, one token": {"num_beams": 3, "max_new_tokens": 1},
    "5 beams": {"num_beams": 5},
    "5 beams, short ones win": {"num_beams": 5, "length_penalty": -1.0},
    "5 beams, long ones win": {"num_beams": 5, "length_penalty": 2.5},
    "4 beams, first to end": {"num_beams": 4, "early_stopping": True},
    "4 beams, never too early": {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.5},
    "4 captions of 4 beams": {"num_beams": 4, "num_captions": 4},
    "3 beams, everything": {
        "num_beams": 3,
        "no_repeat_ngram_size": 3,
        "repetition_penalty": 1.05,
        "min_new_tokens": 3,
        "length_penalty": 0.5,
    },
    "7 beams, phrases, first to end": {"num_beams": 7, "no_repeat_ngram_size": 2, "early_stopping": True},
}


@pytest.fixture(scope="module", params=SEARCHED)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(10)
    made: Backbone = FAMILIES[request.param].tiny()
    made.model.eval()
    with torch.no_grad():
        LIVELY[request.param](made.model)
    return made


@pytest.fixture(scope="module")
def memory(backbone: Backbone) -> torch.Tensor:
    side, seeded = backbone.pixels.size, torch.Generator().manual_seed(0)
    with torch.inference_mode():
        if not side:  # its own processor takes images as they are
            images = torch.randint(0, 256, (PICTURES, 3, 32, 32), dtype=torch.uint8, generator=seeded)
            return backbone.image_features(images)
        return backbone.encode(torch.randn(PICTURES, 3, side, side, generator=seeded))


def both(
    backbone: Backbone, memory: torch.Tensor, prompt: str, options: GenerationOptions
) -> tuple[Generated, Generated]:
    prompts = torch.tensor([backbone.codec.start(prompt)] * len(memory))
    assert backbone.searched_by == "captune"
    with torch.inference_mode():
        own = search_tokens(backbone, memory, prompts, options)
        return own, transformers_search(backbone, memory, prompts, options)


def said(generated: Generated) -> list[list[int]]:
    lengths = generated.lengths.flatten().tolist()
    return [row[:n] for row, n in zip(generated.tokens.flatten(0, 1).tolist(), lengths, strict=True)]


@pytest.mark.parametrize("prompt", ["", "a man"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_tokens_and_log_probabilities_equal_those_of_transformers(
    backbone: Backbone, memory: torch.Tensor, setting: str, prompt: str
) -> None:
    options = GenerationOptions(**{"max_new_tokens": 12, **SETTINGS[setting]})
    mine, theirs = both(backbone, memory, prompt, options)
    assert said(mine) == said(theirs)
    torch.testing.assert_close(mine.log_probs, theirs.log_probs, rtol=1e-3, atol=1e-4)


def test_the_random_models_caption_different_images_differently(backbone: Backbone, memory: torch.Tensor) -> None:
    """Random models may ignore the image or never end: then equal tokens would prove nothing."""
    for beams in (1, 5):
        mine, _ = both(backbone, memory, "", GenerationOptions(max_new_tokens=12, num_beams=beams))
        assert len({tuple(row) for row in said(mine)}) > 20
        assert len({len(row) for row in said(mine)}) > 3


def test_an_image_alone_and_in_a_batch_has_the_same_captions(backbone: Backbone, memory: torch.Tensor) -> None:
    prompts = ["", "a man", "two dogs play", "a", "", "a red circle"]
    for options in (GenerationOptions(max_new_tokens=8), GenerationOptions(max_new_tokens=8, num_beams=1)):
        together = generate(backbone, memory[:6], options, prompts=prompts)
        for n, prompt in enumerate(prompts):
            (alone,) = generate(backbone, memory[n : n + 1], options, prompts=[prompt])
            assert [c.text for c in alone] == [c.text for c in together[n]]
            assert [c.confidence for c in alone] == pytest.approx([c.confidence for c in together[n]], rel=1e-4)


def test_the_search_of_transformers_gives_the_same_captions(backbone: Backbone, memory: torch.Tensor) -> None:
    options = GenerationOptions(max_new_tokens=8, num_captions=2)
    mine = generate(backbone, memory[:20], options)
    theirs = generate(replace(backbone, own_search=False), memory[:20], options)
    assert [[c.text for c in each] for each in mine] == [[c.text for c in each] for each in theirs]


def test_changed_weights_take_effect_in_the_next_caption(backbone: Backbone, memory: torch.Tensor) -> None:
    options = GenerationOptions(max_new_tokens=6, num_beams=1)
    before = generate(backbone, memory[:20], options)
    assert backbone.text_decoder() is backbone.text_decoder()
    kept = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in backbone.parts()["text"]:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        changed = generate(backbone, memory[:20], options)
        assert changed != before
        with torch.enable_grad():  # a fused optimizer does not count its changes
            parameters = backbone.parts()["text"]
            fused = torch.optim.AdamW(parameters, lr=0.3, fused=True)
            sum(p.square().sum() for p in parameters).backward()
            fused.step()
            fused.zero_grad()
        assert generate(backbone, memory[:20], options) != changed
        assert [c[0].text for c in generate(backbone, memory[:20], options)] == [
            c[0].text for c in generate(replace(backbone, own_search=False), memory[:20], options)
        ]
    finally:
        backbone.model.load_state_dict(kept)
    assert generate(backbone, memory[:20], options) == before


def test_tokens_are_streamed_one_by_one(backbone: Backbone, memory: torch.Tensor) -> None:
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    options = GenerationOptions(max_new_tokens=8, num_beams=1)
    ((caption,),) = generate(backbone, memory[:1], options, on_token=lambda *step: steps.append(step))
    tokens = [int(token) for token, _ in steps]
    assert [float(log_prob) for _, log_prob in steps] == pytest.approx(caption.log_probs)
    assert backbone.tokenizer.decode(tokens, skip_special_tokens=True).strip() == caption.text


def beginning(backbone: Backbone, words: str) -> dict[str, Any]:
    """Options by which every caption begins with these words."""
    return {"prefill": words} if backbone.codec.answers else {"prompt": words, "prompt_in_caption": True}


@pytest.mark.parametrize(("beams", "words"), [(1, ""), (1, "two dogs"), (3, "")])
@pytest.mark.parametrize("own", [True, False])
def test_streamed_text_equals_the_caption(backbone: Backbone, beams: int, words: str, own: bool) -> None:
    begins = beginning(backbone, words) if words else {}
    asked = GenerationOptions(max_new_tokens=8, min_new_tokens=6, num_beams=beams, **begins)
    side = backbone.pixels.size or 32
    noise = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    backbone = replace(backbone, own_search=own)
    whole = [each[0].text for each in TorchModel(backbone).generate(noise.numpy(), asked)]
    assert all(text.startswith("two dogs") == bool(words) for text in whole)
    pieces = [list(stream_text(TorchModel(backbone), noise[n : n + 1].numpy(), asked)) for n in range(5)]
    assert ["".join(each) for each in pieces] == whole
    assert (max(len(each) for each in pieces) > 2) == (own and asked.num_beams == 1)


def test_prompt_in_caption_without_a_prompt_is_refused(backbone: Backbone) -> None:
    side = backbone.pixels.size or 32
    image = np.zeros((1, 3, side, side), np.uint8)
    asked = GenerationOptions(max_new_tokens=2, prompt_in_caption=True)
    own = replace(backbone, prompt="two dogs")
    answers = backbone.codec.answers
    if not answers:
        assert TorchModel(own).generate(image, asked)[0][0].text.startswith("two dogs")
    for prompts in (None, [""]):
        with pytest.raises(UsageError, match="answer their prompt" if answers else "no prompt"):
            TorchModel(replace(backbone, prompt="")).generate(image, asked, prompts=prompts)


def test_closing_a_stream_ends_the_search(backbone: Backbone) -> None:
    side = backbone.pixels.size or 32
    pieces = stream_text(
        TorchModel(backbone), np.zeros((1, 3, side, side), np.uint8), GenerationOptions(num_beams=1, min_new_tokens=25)
    )
    next(pieces)
    pieces.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("captune-spoken")]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 3, 1.0), (2.0, 0, 0.7), (0.8, 9, 0.6)]
)
def test_chances_are_those_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = 3 * torch.randn(4, 5, 40, generator=torch.Generator().manual_seed(0))
    theirs: list[Any] = [TemperatureLogitsWarper(temperature)]
    theirs += [TopKLogitsWarper(top_k)] if top_k else []
    theirs += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    expected = LogitsProcessorList(theirs)(torch.zeros(20, 1, dtype=torch.long), scores.flatten(0, 1)).softmax(-1)
    sampler = Sampler(torch.full((5,), temperature), top_k, top_p, TorchOps(scores.device))
    torch.testing.assert_close(sampler.warp(scores).softmax(-1).flatten(0, 1), expected)


def test_tokens_are_sampled_with_their_probabilities(backbone: Backbone, memory: torch.Tensor) -> None:
    """First tokens of 4,000 captions of one image against the model's own probabilities."""
    prompts = torch.tensor([backbone.codec.start("")])
    options = GenerationOptions(num_beams=1, num_captions=50, sample=True, max_new_tokens=1, top_k=0)
    torch.manual_seed(0)
    with torch.inference_mode():
        rounds = [search_tokens(backbone, memory[:1], prompts, options).tokens.flatten() for _ in range(80)]
        drawn = torch.cat(rounds)
        decoder = backbone.cached_decoder(memory[:1])
        assert decoder is not None
        scores = decoder.prefill(prompts, 1, 1)[0, -1]
        scores[list(backbone.suppressed_tokens)] = float("-inf")
        likely = scores.softmax(-1)
    often = torch.bincount(drawn, minlength=len(likely)) / len(drawn)
    sigma = (likely * (1 - likely) / len(drawn)).sqrt()
    assert ((often - likely).abs() <= 5 * sigma + 1e-6).all()


def test_several_samples_of_one_image_differ(backbone: Backbone, memory: torch.Tensor) -> None:
    options = GenerationOptions(num_beams=1, num_captions=8, sample=True, sample_seed=1, max_new_tokens=6)
    (captions,) = generate(backbone, memory[:1], options)
    assert len({caption.text for caption in captions}) > 1
    assert generate(backbone, memory[:1], options) == [captions]


def test_without_a_seed_every_call_samples_anew(backbone: Backbone, memory: torch.Tensor) -> None:
    options = GenerationOptions(num_beams=1, num_captions=8, sample=True, max_new_tokens=6)
    assert generate(backbone, memory[:1], options) != generate(backbone, memory[:1], options)


def test_a_seed_keeps_the_global_random_state(backbone: Backbone, memory: torch.Tensor) -> None:
    before = torch.random.get_rng_state()
    generate(backbone, memory[:1], GenerationOptions(num_beams=1, sample=True, sample_seed=1, max_new_tokens=6))
    assert torch.equal(before, torch.random.get_rng_state())
