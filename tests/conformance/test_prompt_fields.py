"""A prompt with fields: filled for each image in training, measuring and captioning, and saved with the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import captune
from captune.core.config import resolve
from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.core.records import ImageRecord
from captune.evaluation.evaluator import likelihood_of_references
from captune.inference.batches import make_examples
from captune.inference.captioning import caption_records
from captune.inference.torch_model import TorchModel
from captune.models.backbone import Backbone
from captune.models.blip import Blip
from captune.training.build import build_backbone
from random_weights import LIVELY

TAGGED = Path(__file__).parents[1] / "unit" / "images" / "tagged"
PROMPT = "a photo[ of {names}][ in {iptc.City}] shows"
PROMPTS = ["a photo of Anna Ærø, Ben in Zürich shows", "a photo shows"]
TEXTS = [*PROMPTS, "two dogs run", "a sea"] * 2


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    folder = tmp_path_factory.mktemp("photos")
    shutil.copy(TAGGED / "photo.jpg", folder)
    shutil.copy(TAGGED / "beside.jpg", folder / "plain.jpg")
    names = {"photo.jpg": "two dogs run", "plain.jpg": "a sea"}
    return [ImageRecord(name, str(folder / name), (text,)) for name, text in names.items()]


@pytest.fixture(scope="module")
def blip() -> Backbone:
    backbone = Blip.new("tiny", TEXTS)
    with torch.no_grad():
        LIVELY["blip"](backbone.model)
    backbone.prompt, backbone.generation = PROMPT, {"max_new_tokens": 5, "num_beams": 1}
    return backbone


def test_training_reads_the_prompt_of_each_image_and_learns_none_of_it(
    blip: Backbone, records: list[ImageRecord]
) -> None:
    encoded = [example.references[0] for example in make_examples(records, blip, max_tokens=20)]
    assert [list(one.tokens[: one.prompt_length]) for one in encoded] == [blip.codec.start(text) for text in PROMPTS]
    assert [blip.decode(one.tokens[one.prompt_length :]) for one in encoded] == ["two dogs run", "a sea"]


def test_measuring_and_captioning_read_the_same(blip: Backbone, records: list[ImageRecord]) -> None:
    options = GenerationOptions(num_beams=1, max_new_tokens=5)
    model = TorchModel(blip)
    captions = caption_records(model, records, options)
    losses = likelihood_of_references(blip, records)
    for number, (record, prompt) in enumerate(zip(records, PROMPTS, strict=True)):
        literal = options.model_copy(update={"prompt": prompt})
        assert caption_records(model, [record], literal)[record.id].tokens == captions[record.id].tokens
        blip.prompt = prompt
        alone = likelihood_of_references(blip, [record])
        blip.prompt = PROMPT
        assert losses.nll[number] == pytest.approx(alone.nll[0], rel=1e-5)
    assert losses.tokens.tolist() == [4, 3]


def test_the_template_is_saved_with_the_model(blip: Backbone, records: list[ImageRecord], tmp_path: Path) -> None:
    blip.save(tmp_path / "model")
    rows = list(captune.caption([record.image for record in records], model=str(tmp_path / "model")))
    assert [row.prompt for row in rows] == PROMPTS
    captioner = captune.Captioner.load(str(tmp_path / "model"))
    inspected = [captioner.inspect(record.image).prompt for record in records]
    assert inspected == PROMPTS
    assert blip.codec.prompt == "a photo shows"  # of an image of which nothing is known


def test_what_training_refuses(records: list[ImageRecord]) -> None:
    def build(**flags: object) -> None:
        build_backbone("new:blip-tiny", records, resolve("train", flags=flags).values, new=True)

    with pytest.raises(UsageError, match=r"no field \{nmes\}"):
        build(train_prompt="a photo of {nmes}")
    with pytest.raises(UsageError, match="one prompt for all images"):
        build(train_prompt=PROMPT, stage="scst", max_new_tokens=5)
