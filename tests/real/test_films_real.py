"""A film made of real photos: each scene found and captioned."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

import captune
from captune.models.blip import Blip
from films import write_film
from random_weights import LIVELY

pytestmark = pytest.mark.real
pytest.importorskip("av")
SIZE, RATE, SCENES = (320, 240), 24, 10


def filmed(photo: Image.Image, seconds: float, chance: random.Random) -> list[Image.Image]:
    """A camera that goes over a photo: a pan and a zoom, with a hand that shakes."""
    width, height = photo.size
    share, left, top = chance.uniform(0.6, 0.8), chance.random(), chance.random()
    pan, zoom = chance.uniform(-0.1, 0.1), chance.uniform(-0.03, 0.03)
    frames = []
    for number in range(round(seconds * RATE)):
        time = number / RATE
        part = min(share + zoom * time, 1.0)
        x = min(max(left + pan * time + chance.gauss(0, 0.002), 0), 1) * width * (1 - part)
        y = min(max(top + chance.gauss(0, 0.002), 0), 1) * height * (1 - part)
        frames.append(photo.resize(SIZE, box=(x, y, x + width * part, y + height * part)))
    return frames


@pytest.mark.parametrize(
    ("name", "codec", "seed"), [("a.mp4", "libx264", 1), ("a.mkv", "libx264", 2), ("a.avi", "mpeg4", 3)]
)
def test_each_scene_is_found_and_captioned(name: str, codec: str, seed: int, test_data: Path, tmp_path: Path) -> None:
    import av

    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {codec}")
    chance = random.Random(seed)
    photos = chance.sample(sorted((test_data / "flickr8k" / "original").glob("*.jpg")), SCENES)
    lengths = [round(chance.uniform(1.5, 3) * RATE) / RATE for _ in photos]
    opened = (Image.open(photo).convert("RGB") for photo in photos)
    frames = (f for photo, length in zip(opened, lengths, strict=True) for f in filmed(photo, length, chance))
    path = write_film(tmp_path / name, frames, codec=codec, rate=RATE)

    torch.manual_seed(0)
    backbone = Blip.tiny(("a dog runs in the grass", "two men on a bike", "a child in the snow") * 3)
    with torch.no_grad():
        LIVELY["blip"](backbone.model)
    backbone.save(tmp_path / "model")
    (film,) = captune.video(
        path, model=str(tmp_path / "model"), frames=tmp_path / "frames", merge=False, num_beams=1, max_new_tokens=5,
        environment={},
    )  # fmt: skip

    assert (film.status, film.error) == ("ok", None)
    cuts = [0.0, *itertools.accumulate(lengths)]
    assert [scene.start for scene in film.scenes] == pytest.approx(cuts[:-1], abs=0.26)
    assert film.scenes[-1].end == pytest.approx(cuts[-1], abs=0.1)
    captioner = captune.Captioner.load(str(tmp_path / "model"), num_beams=1, max_new_tokens=5)
    for scene, start, end in zip(film.scenes, cuts[:-1], cuts[1:], strict=True):
        assert start <= scene.time <= end, "the image of a scene is of that scene"
        assert 0 < scene.captions[0].confidence < 1
        assert scene.frame
        assert Image.open(scene.frame).size == SIZE
    # Some of the saved images lose a word to JPEG; most say what the film said.
    again = [captioner(scene.frame).text == scene.text for scene in film.scenes]
    assert sum(again) >= 0.7 * len(again)
