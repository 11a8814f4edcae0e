"""`captune inspect`: what it tells is what happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.cli.main import run
from captune.models import FAMILIES
from noise import noise
from random_weights import LIVELY

TEXTS = ("a red circle", "two dogs play on a bike", "what is it ?", "a man on a bike .") * 3


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    torch.manual_seed(0)
    made = FAMILIES[request.param].tiny(TEXTS)
    with torch.no_grad():
        LIVELY[request.param](made.model)
    made.model.eval()
    made.prompt = "a man"
    made.save(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A greyscale JPEG of 60 × 40 that EXIF turns upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise((60, 40), 80).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    return tmp_path / "photo.jpg"


def test_it_tells_the_way_of_a_picture_to_its_caption(model: str, photo: Path) -> None:
    captioner = captune.Captioner.load(model, max_new_tokens=6)
    found = captioner.inspect(photo)
    said = captioner(photo)
    assert (found.caption, found.confidence) == (said.text, said.confidence)
    file = found.preparation.stored
    assert (file.format, file.mode, file.width, file.height, file.orientation) == ("JPEG", "L", 60, 40, 6)
    assert found.preparation.size == (40, 60)
    assert found.preparation.square == captioner.backbone.pixels.size
    upright = Image.open(photo).transpose(Image.Transpose.ROTATE_270).convert("RGB")
    if found.preparation.square:
        values = np.asarray(captioner.backbone.processor(upright)["pixel_values"][0])
    else:  # its processor takes the image as it is
        values = np.asarray(upright).transpose(2, 0, 1) / 255
    assert found.preparation.mean == pytest.approx(values.mean((1, 2)), abs=1e-5)
    assert found.preparation.std == pytest.approx(values.std((1, 2)), abs=1e-5)
    assert (found.preparation.low, found.preparation.high) == pytest.approx((values.min(), values.max()), abs=1e-5)
    assert found.prompt == "a man"
    assert len(found.prompt_tokens) == len(captioner.backbone.codec.start("a man"))
    assert 1 <= len(found.steps) <= 6
    assert np.exp(np.mean([np.log(step.probability) for step in found.steps])) == pytest.approx(
        said.confidence, rel=1e-3
    )
    assert set(found.seconds) == {"reading", "vision", "search"}
    assert all(value > 0 for value in found.seconds.values())


def test_the_verb_prints_tables_or_json(model: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(photo), "--model", model, "--max-new-tokens", "4", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "JPEG, L, 60 × 40, on its side, turned 90° clockwise" in out
    assert "part that is seen" in out
    assert run(["inspect", str(photo), "--model", model, "--max-new-tokens", "4", "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["preparation"]["size"] == [40, 60]
    assert all(len(step["alternatives"]) == 5 for step in told["steps"])
    assert run(["inspect", "none.jpg", "--model", model, "--quiet"]) == 1
