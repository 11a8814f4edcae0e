"""The search of an export, on numpy arrays, writes the tokens that the search on torch's tensors writes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.decoding.numpy_ops import NumpyOps
from captune.decoding.sampling import Sampler
from captune.decoding.torch_ops import TorchOps
from captune.inference.pieces import stream_text
from captune.inference.runtime import ExportedModel
from captune.inference.torch_model import TorchModel
from captune.models.backbone import Backbone
from torchless import lively, without_files

PICTURES = 60
FAMILIES = ("blip", "clip-gpt2", "git")
PROMPTS = ["", "a man", "two dogs play", "a", None]


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return lively(request.param)


@pytest.fixture(scope="module")
def model(backbone: Backbone) -> ExportedModel:
    return without_files(backbone)


@pytest.fixture(scope="module")
def seen(backbone: Backbone) -> np.ndarray:
    side = backbone.pixels.size
    return np.random.default_rng(0).integers(0, 256, (PICTURES, 3, side, side), np.uint8)


def drawn_options(seed: int) -> dict[str, Any]:
    """A search without chance, every option of it drawn."""
    rng = np.random.default_rng(seed)
    beams = int(rng.choice([1, 1, 2, 3, 4, 7]))
    most = int(rng.integers(1, 15))
    return {
        "num_beams": beams,
        "num_captions": int(rng.integers(1, beams + 2)),
        "max_new_tokens": most,
        "min_new_tokens": int(rng.integers(0, most + 1)) if rng.random() < 0.4 else 0,
        "repetition_penalty": float(rng.choice([1.0, 1.0, 1.3, 0.8])),
        "no_repeat_ngram_size": int(rng.choice([0, 0, 1, 2, 3])),
        "length_penalty": float(rng.choice([1.0, 0.0, -1.0, 2.5, 0.5])),
        "early_stopping": str(rng.choice(["on", "off", "never"])),
    }


def tokens(captions: list[list[Caption]]) -> list[list[tuple[int, ...]]]:
    return [[caption.tokens for caption in each] for each in captions]


def confidences(captions: list[list[Caption]]) -> list[float]:
    return [caption.confidence for each in captions for caption in each]


@pytest.mark.parametrize("draw", range(24))
def test_tokens_texts_and_confidence_are_those_of_torch(
    backbone: Backbone, model: ExportedModel, seen: np.ndarray, draw: int
) -> None:
    options = GenerationOptions(**drawn_options(draw))
    prompts = [PROMPTS[(n + draw) % len(PROMPTS)] if draw % 3 else None for n in range(PICTURES)]
    theirs = TorchModel(backbone).generate(seen, options, prompts=prompts)
    mine = model.generate(seen, options, prompts=prompts)
    assert tokens(mine) == tokens(theirs)
    assert mine == [
        [Caption(other.text, one.confidence, cut=other.cut) for one, other in zip(*each, strict=True)]
        for each in zip(mine, theirs, strict=True)
    ]
    assert confidences(mine) == pytest.approx(confidences(theirs), rel=1e-4)


def test_the_random_models_caption_different_images_differently(model: ExportedModel, seen: np.ndarray) -> None:
    """Random models may ignore the image or never end: then equal tokens would prove nothing."""
    for beams in (1, 5):
        said = tokens(model.generate(seen, GenerationOptions(max_new_tokens=12, num_beams=beams)))
        assert len({each[0] for each in said}) > 10
        assert len({len(each[0]) for each in said}) > 2


def test_an_image_alone_and_in_a_batch_has_the_same_captions(model: ExportedModel, seen: np.ndarray) -> None:
    options = GenerationOptions(max_new_tokens=8)
    together = model.generate(seen[:5], options, prompts=PROMPTS)
    for n, prompt in enumerate(PROMPTS):
        (alone,) = model.generate(seen[n : n + 1], options, prompts=[prompt])
        assert alone[0].tokens == together[n][0].tokens
        assert alone[0].confidence == pytest.approx(together[n][0].confidence, rel=1e-4)


def test_options_that_torch_refuses_are_refused_with_its_words(
    backbone: Backbone, model: ExportedModel, seen: np.ndarray
) -> None:
    for wrong in ({"min_new_tokens": 9, "max_new_tokens": 8}, {"max_new_tokens": 500}):
        said = []
        for speaker in (lambda o: TorchModel(backbone).generate(seen[:1], o), lambda o: model.generate(seen[:1], o)):
            with pytest.raises(UsageError) as caught:
                speaker(GenerationOptions(**wrong))
            said.append(str(caught.value))
        assert said[0] == said[1]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.5, 3, 1.0), (2.0, 0, 0.7), (0.8, 9, 0.6), (1.0, 99, 1.0)]
)
def test_chances_are_those_of_torch(temperature: float, top_k: int, top_p: float) -> None:
    scores = 3 * np.random.default_rng(0).standard_normal((4, 5, 40), np.float32)
    by_row = temperature * np.arange(1, 6, dtype=np.float32)
    mine = Sampler(by_row, top_k, top_p, NumpyOps()).warp(scores)
    ops = TorchOps(torch.device("cpu"))
    theirs = Sampler(torch.from_numpy(by_row), top_k, top_p, ops).warp(torch.from_numpy(scores))
    assert np.allclose(NumpyOps().softmax(mine), theirs.softmax(-1).numpy(), atol=1e-6)


def test_tokens_are_sampled_with_their_probabilities(model: ExportedModel, seen: np.ndarray) -> None:
    """First tokens of 4,000 captions of one image against the model's own probabilities, which are confidences."""
    options = GenerationOptions(num_beams=1, num_captions=50, sample=True, max_new_tokens=1, top_k=0)
    drawn = [each for seed in range(80) for each in model.generate(seen[:1], options.model_copy(
        update={"sample_seed": seed}))[0]]  # fmt: skip
    likely = {each.tokens[0]: each.confidence for each in drawn}
    assert sum(likely.values()) == pytest.approx(1, abs=0.05)
    for token, chance in likely.items():
        often = sum(each.tokens[0] == token for each in drawn) / len(drawn)
        assert abs(often - chance) <= 5 * (chance * (1 - chance) / len(drawn)) ** 0.5


def test_drawing_several_never_draws_one_twice() -> None:
    """As often first as the chances say, and the second from what is left."""
    chances = np.array([0.6, 0.3, 0.1])
    scores = np.broadcast_to(np.log(chances), (20_000, 3))
    place = NumpyOps(np.random.default_rng(1)).multinomial(scores, 2)
    assert (place[:, 0] != place[:, 1]).all()
    expected = np.array([[0, 0.6 * 0.75, 0.6 * 0.25], [0.3 * 6 / 7, 0, 0.3 / 7], [0.1 * 2 / 3, 0.1 / 3, 0]])
    found = np.zeros((3, 3))
    np.add.at(found, (place[:, 0], place[:, 1]), 1 / len(place))
    assert np.abs(found - expected).max() < 0.015


@pytest.mark.parametrize("how", [{"num_captions": 4}, {"variations": 3}, {"num_beams": 3, "num_captions": 2}])
def test_a_seed_makes_sampling_repeatable(model: ExportedModel, seen: np.ndarray, how: dict[str, Any]) -> None:
    options = GenerationOptions(**{"num_beams": 1, "sample": True, "sample_seed": 5, "max_new_tokens": 8, **how})
    first = model.generate(seen[:6], options)
    assert model.generate(seen[:6], options) == first
    assert model.generate(seen[:6], options.model_copy(update={"sample_seed": 6})) != first
    assert all(len(each) == (how.get("variations") or how["num_captions"]) for each in first)


@pytest.mark.parametrize(
    "how", [{"num_beams": 1}, {"num_beams": 1, "prompt": "two dogs", "prompt_in_caption": True}, {"num_beams": 3}]
)
def test_streamed_text_equals_the_caption(model: ExportedModel, seen: np.ndarray, how: dict[str, Any]) -> None:
    options = GenerationOptions(max_new_tokens=8, min_new_tokens=6, **how)
    whole = [each[0].text for each in model.generate(seen[:5], options)]
    assert all(text.startswith("two dogs") == options.prompt_in_caption for text in whole)
    pieces = [list(stream_text(model, seen[n : n + 1], options)) for n in range(5)]
    assert ["".join(each) for each in pieces] == whole
    assert (max(len(each) for each in pieces) > 2) == (options.num_beams == 1)


def test_closing_a_stream_ends_the_search(model: ExportedModel, seen: np.ndarray) -> None:
    pieces = stream_text(model, seen[:1], GenerationOptions(num_beams=1, min_new_tokens=25))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("captune-spoken")]
