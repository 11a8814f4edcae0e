"""The official splits, found beside the captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captune.core.errors import CaptuneError, UsageError
from captune.datasets.formats import read_source
from captune.datasets.splits import official_split
from sources import jpeg, records, write

FILES = {"train": "a.jpg\nb.jpg\n", "dev": "c.jpg\r\n", "test": "d.jpg"}


def lists(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in files.items():
        (folder / f"Flickr_8k.{split}Images.txt").write_bytes(text.encode())


@pytest.mark.parametrize("where", [".", "Flickr8k_text", "anything", "../Flickr8k_text", ".."])
def test_flickr8k_lists_near_the_source(tmp_path: Path, where: str) -> None:
    source = tmp_path / "inner" / "data"
    source.mkdir(parents=True)
    (source / "captions.txt").write_text("image,caption\n", encoding="utf-8")
    lists(source / where, FILES)
    expected = {"a.jpg": "train", "b.jpg": "train", "c.jpg": "val", "d.jpg": "test"}
    assert official_split("flickr8k", source) == expected
    assert official_split("flickr8k", source / "captions.txt") == expected


def test_flickr8k_lists_that_are_missing_or_overlap(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=r"Flickr_8k\.trainImages\.txt.*looked in") as caught:
        official_split("flickr8k", tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--split 80/10/10" in caught.value.hint
    lists(tmp_path, {**FILES, "test": "d.jpg\na.jpg\n"})
    with pytest.raises(CaptuneError, match=r"testImages\.txt, line 2: a\.jpg is in test and in train"):
        official_split("flickr8k", tmp_path)


def test_karpathy(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=r"dataset_coco\.json; looked in"):
        official_split("karpathy", tmp_path)
    splits = {"a.jpg": "train", "b.jpg": "restval", "c.jpg": "val", "d.jpg": "test"}
    images = [{"filename": name, "split": split, "sentences": []} for name, split in splits.items()]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": images}), encoding="utf-8")
    assert official_split("karpathy", tmp_path) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "val", "d.jpg": "test"}


def test_karpathy_files_of_several_data_sets(tmp_path: Path) -> None:
    for name in ("coco", "flickr8k"):
        image = {"filename": f"{name}.jpg", "split": "val", "sentences": [{"raw": "A dog"}]}
        (tmp_path / f"dataset_{name}.json").write_text(json.dumps({"images": [image]}), encoding="utf-8")
    assert official_split("karpathy", tmp_path) == {"coco.jpg": "val", "flickr8k.jpg": "val"}
    with pytest.raises(CaptuneError, match="several Karpathy files"):
        read_source(tmp_path)


def test_an_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no official split 'karpaty'") as caught:
        official_split("karpaty", tmp_path)
    assert "Did you mean 'karpathy'" in caught.value.hint


def test_vqa_answers_that_are_numbers(tmp_path: Path) -> None:
    asked = [{"question_id": n, "image_id": 1, "question": f"Which {n}?"} for n in (1, 2, 3)]
    answers: list[dict[str, Any]] = [
        {"answers": [{"answer": 3}, {"answer": "three"}]},
        {"multiple_choice_answer": 0},
        {"answers": [{"x": 1}]},
    ]
    annotations = [{"question_id": n, **each} for n, each in enumerate(answers, start=1)]
    write(tmp_path / "v2_mscoco_train2014_questions.json", json.dumps({"questions": asked}))
    write(tmp_path / "v2_mscoco_train2014_annotations.json", json.dumps({"annotations": annotations}))
    write(tmp_path / "train2014" / "COCO_train2014_000000000001.jpg", jpeg(1))
    name, found, _, problems = records(tmp_path)
    assert (name, [record.references for record in found]) == ("vqa", [("3", "three"), ("0",)])
    assert any(problem.reason.startswith("'answers' is {\"x\": 1}") for problem in problems)
