"""Real photos through prepare: Flickr8k at 128 px and at original size, COCO."""

from __future__ import annotations

import csv
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from captune.core.errors import CaptuneError
from captune.datasets.prepare import prepare
from captune.datasets.prepared import read_split
from captune.images.open import open_image
from captune.images.preprocessing import to_pixels
from captune.models.backbone import PixelSettings

pytestmark = pytest.mark.real


def images_of(out: Path, split: str) -> set[str]:
    return {Path(record.image).name for record in read_split(out, split)}


@pytest.mark.slow
def test_the_whole_of_flickr8k(test_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "flickr8k"
    (source / "Images").mkdir(parents=True)
    for file in (test_data / "flickr8k").glob("*.txt"):
        shutil.copy(file, source)
    with tarfile.open(test_data / "flickr8k" / "images-128.tar") as tar:
        tar.extractall(source / "Images", filter="data")
    result = prepare(source, tmp_path / "out", split="flickr8k")
    assert {name: count.images for name, count in result.splits.items()} == {"train": 6000, "val": 1000, "test": 1000}
    assert {name: count.references for name, count in result.splits.items()} == {
        "train": 30000, "val": 5000, "test": 5000,
    }  # fmt: skip
    assert result.problems == ()
    assert any("In no split: 91 images" in note for note in result.notes)
    for split, file in (("train", "train"), ("val", "dev"), ("test", "test")):
        listed = (source / f"Flickr_8k.{file}Images.txt").read_text().split()
        assert images_of(tmp_path / "out", split) == set(listed)
    with open(tmp_path / "out" / "train.csv", newline="", encoding="utf-8") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert sum("," in caption for caption in captions) > 1500, "captions with commas are whole"

    (source / "captions.txt").unlink()
    ragged = prepare(source, tmp_path / "ragged", split="flickr8k", on_bad="skip")
    assert ragged.format == "flickr-token"
    assert sorted(Path(problem.where).name for problem in ragged.problems) == [
        "2258277193_586949ec62.jpg", "2258277193_586949ec62.jpg.1",
    ]  # fmt: skip
    assert {name: count.images for name, count in ragged.splits.items()} == {"train": 6000, "val": 1000, "test": 1000}


def test_original_photos_with_the_official_split(test_data: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="7,931 of 8,091"):
        prepare(test_data / "flickr8k", tmp_path / "out", split="flickr8k")
    result = prepare(test_data / "flickr8k", tmp_path / "out", split="flickr8k", on_bad="skip")
    assert {name: count.images for name, count in result.splits.items()} == {"train": 100, "val": 25, "test": 35}
    assert Counter(problem.reason for problem in result.problems) == {"there is no such file": 7931}
    assert result.duplicates == ()


def test_coco_in_its_own_format(test_data: Path, tmp_path: Path) -> None:
    result = prepare(test_data / "coco", tmp_path / "out")
    assert result.format == "coco"
    assert {name: count.images for name, count in result.splits.items()} == {"train": 48, "val": 6, "test": 6}
    assert sum(count.references for count in result.splits.values()) >= 300
    assert result.problems == ()


def test_pixels_of_photos_are_those_of_transformers(test_data: Path) -> None:
    processors = pytest.importorskip("transformers.models.blip.image_processing_pil_blip")
    processor = processors.BlipImageProcessorPil()
    photos = sorted((test_data / "flickr8k" / "original").iterdir())[:10]
    photos += sorted((test_data / "coco" / "val2017").iterdir())[:10]
    for photo in photos:
        image = open_image(photo)
        theirs = processor(image, return_tensors="np")["pixel_values"][0]
        pixels = torch.from_numpy(to_pixels(image, 384))
        ours = PixelSettings(384, mean=processor.image_mean, std=processor.image_std).normalise(pixels)
        assert np.array_equal(ours.numpy(), theirs), photo.name
