"""The real caption files: nothing is cut, nothing is lost."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from captune.datasets.formats import read_source
from captune.datasets.merge import EmbeddedImage, Problem
from captune.datasets.splits import official_split

pytestmark = pytest.mark.real


def test_kaggle_file_whole(test_data: Path) -> None:
    problems: list[Problem] = []
    name, found = read_source(test_data / "flickr8k", problems=problems)
    records = list(found)
    assert (name, problems, len(records)) == ("kaggle", [], 8091)
    assert {len(record.references) for record in records} == {5}
    with open(test_data / "flickr8k" / "captions.txt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == 40_455
    expected = Counter((image, caption.strip()) for image, caption in rows)
    assert Counter((record.id, text) for record in records for text in record.references) == expected
    assert sum("," in text for record in records for text in record.references) == 2447
    assert sum(record.image.is_file() for record in records) == 160


def test_all_pictures_out_of_the_tar(test_data: Path) -> None:
    folder = test_data / "flickr8k"
    _, found = read_source(folder, images=folder / "images-128.tar", problems=[])
    starts = [record.image.read()[:3] for record in found if isinstance(record.image, EmbeddedImage)]
    assert (len(starts), set(starts)) == (8091, {b"\xff\xd8\xff"})


def test_token_file_is_ragged(test_data: Path) -> None:
    problems: list[Problem] = []
    source = test_data / "flickr8k" / "Flickr8k.token.txt"
    name, found = read_source(source, images=test_data / "flickr8k" / "original", problems=problems)
    records = list(found)
    assert (name, problems) == ("flickr-token", [])
    assert Counter(len(record.references) for record in records) == {5: 8091, 4: 1, 1: 1}
    assert sum(len(record.references) for record in records) == 40_460


def test_official_split(test_data: Path) -> None:
    for source in (test_data / "flickr8k", test_data / "flickr8k" / "captions.txt"):
        splits = official_split("flickr8k", source)
        assert Counter(splits.values()) == {"train": 6000, "val": 1000, "test": 1000}
    _, found = read_source(test_data / "flickr8k")
    assert sum(record.id not in splits for record in found) == 91


def test_coco_sample(test_data: Path) -> None:
    for source in (test_data / "coco", test_data / "coco" / "captions_val2017_60.json"):
        problems: list[Problem] = []
        name, found = read_source(source, problems=problems)
        records = list(found)
        assert (name, problems, len(records)) == ("coco", [], 60)
        assert sum(len(record.references) for record in records) == 300
        assert {record.split for record in records} == {"val"}
        assert all(record.image.is_file() for record in records)
