"""JSON Lines, JSON lists, COCO and Karpathy: exact references, splits, odd shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from sources import photos, read_all, references


@pytest.mark.parametrize(
    "text",
    [
        '{"image": "a.jpg", "captions": ["A dog", "Again"], "split": "train"}\n'
        '{"image": "b.jpg", "caption": "A bird", "split": "dev"}\n',
        '{"file_name": "a.jpg", "text": "A dog", "split": "train"}\n{"file_name": "b.jpg", "text": "A bird", '
        '"split": "val"}\n{"file_name": "a.jpg", "text": "Again", "split": "train"}\n',
        '[{"image": "a.jpg", "references": ["A dog", "Again"], "split": "train"},\n'
        ' {"image": "b.jpg", "references": "A bird", "split": "validation"}]',
    ],
)
def test_jsonl_and_json_lists(tmp_path: Path, text: str) -> None:
    photos(tmp_path / "Images", "a.jpg", "b.jpg")
    (tmp_path / ("data.json" if text.startswith("[") else "data.jsonl")).write_text(text, encoding="utf-8")
    name, found, problems = read_all(tmp_path)
    assert (name, problems) == ("jsonl", [])
    assert references(found) == {"a.jpg": ("A dog", "Again"), "b.jpg": ("A bird",)}
    assert [record.split for record in found] == ["train", "val"]


def test_json_map_of_images(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "data.json").write_text(json.dumps({"a.jpg": ["A dog", "Again"], "b.jpg": "A bird"}), "utf-8")
    name, found, _ = read_all(tmp_path)
    assert (name, references(found)) == ("jsonl", {"a.jpg": ("A dog", "Again"), "b.jpg": ("A bird",)})


def test_jsonl_bad_rows(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    source = tmp_path / "data.jsonl"
    source.write_text(
        '{"image": "a.jpg", "caption": "fine"}\n{"image": "a.jpg", "cap\n[1]\n{"image": "a.jpg", "label": 3}\n'
        '{"image": {"bytes": 1}, "caption": "x"}\n{"image": "a.jpg", "caption": null}\n',
        encoding="utf-8",
    )
    _, found, problems = read_all(source)
    assert references(found) == {"a.jpg": ("fine",)}
    assert [problem.where for problem in problems] == [f"data.jsonl, line {n}" for n in (2, 3, 4, 5, 6)]
    assert "image, label" in problems[2].reason


COCO = {
    "info": {},
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "A dog, a cat"},
        {"id": 2, "image_id": 8, "caption": "A bird\n"},
        {"id": 3, "image_id": 7, "caption": "Again"},
    ],
}


def test_coco_root_with_splits_from_the_names(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    photos(tmp_path / "train2017", "a.jpg", "b.jpg")
    photos(tmp_path / "val2017", "c.jpg")
    (tmp_path / "annotations" / "captions_train2017.json").write_text(json.dumps(COCO), "utf-8")
    value = {"images": [{"id": 9, "file_name": "c.jpg"}], "annotations": [{"image_id": 9, "caption": "C"}]}
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(value), "utf-8")
    (tmp_path / "annotations" / "captions_train2014.json").write_text(json.dumps(COCO), "utf-8")
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(value), "utf-8")
    name, found, problems = read_all(tmp_path)
    assert (name, problems) == ("coco", [])
    assert [(r.id, r.image, r.references, r.split) for r in found] == [
        ("7", tmp_path / "train2017" / "a.jpg", ("A dog, a cat", "Again"), "train"),
        ("8", tmp_path / "train2017" / "b.jpg", ("A bird",), "train"),
        ("9", tmp_path / "val2017" / "c.jpg", ("C",), "val"),
    ]
    name, found, _ = read_all(tmp_path / "annotations" / "captions_val2017.json")
    assert (name, found[0].image, found[0].split) == ("coco", tmp_path / "val2017" / "c.jpg", "val")


def test_coco_bad_entries(tmp_path: Path) -> None:
    photos(tmp_path / "images", "a.jpg")
    content = {
        "images": [
            {"id": 7, "file_name": "a.jpg"},
            {"id": 7, "file_name": "a.jpg"},
            {"id": 7, "file_name": "other.jpg"},
            {"id": 5, "file_name": "none.jpg"},
            {"file_name": "x.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "caption": "fine"},
            {"id": 2, "image_id": 99, "caption": "lost"},
            {"id": 3, "image_id": 7, "caption": " "},
            {"id": 4, "image_id": 7},
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content), "utf-8")
    name, found, problems = read_all(tmp_path)
    assert (name, references(found), found[0].split) == ("coco", {"a.jpg": ("fine",)}, None)
    said = " / ".join(f"{problem.where}: {problem.reason}" for problem in problems)
    assert "annotation 2: points at image 99" in said
    assert "annotation 3: the caption is empty" in said
    assert "annotation 4: has no 'caption'" in said
    assert "id 7 is other.jpg here and a.jpg before" in said
    assert "image 5: none.jpg has no caption" in said
    assert "image 5 of 'images': has no 'id'" in said


def test_coco_instances_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "instances_val2017.json"
    source.write_text(
        '{"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"bbox": []}]}', "utf-8"
    )
    with pytest.raises(CaptuneError, match="no 'caption'"):
        read_all(source)
    source.write_text('{"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}]}', "utf-8")
    with pytest.raises(CaptuneError, match="expected a list 'annotations', found info, images"):
        read_all(source)


def test_json_of_the_wrong_shape_never_crashes(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    source = tmp_path / "data.json"
    image = '{"id": 1, "file_name": "a.jpg"}'
    fine = '{"id": 1, "image_id": 1, "caption": "fine"}'
    for images, captions, said in (
        (f'{image}, {{"id": [1]}}', fine, "has no 'id'"),
        (f'{image}, {{"id": 2, "file_name": 5}}', fine, "has no 'file_name'"),
        (image, f'{fine}, {{"id": 2, "image_id": {{}}, "caption": "x"}}', "points at image {}"),
        (image, f"{fine}, 3", "has no 'caption'"),
    ):
        source.write_text(f'{{"images": [{images}], "annotations": [{captions}]}}', "utf-8")
        _, found, problems = read_all(source)
        assert references(found) == {"a.jpg": ("fine",)}
        assert said in problems[0].reason
    wrong = [{"filename": 3}, {"filename": "a.jpg", "sentences": 3}, 7, {"filename": "a.jpg", "sentences": [1]}]
    right = {"filename": "a.jpg", "sentences": [{"raw": "fine"}, {"raw": 3, "tokens": 4}], "split": None}
    source.write_text(json.dumps({"images": [right, *wrong]}), "utf-8")
    name, found, problems = read_all(source)
    assert (name, references(found), len(problems)) == ("karpathy", {"a.jpg": ("fine",)}, 4)
    source.write_text("[" * 100_000, "utf-8")
    with pytest.raises(CaptuneError, match="Nested too deeply"):
        read_all(source)


def test_half_characters_can_be_written(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / "data.jsonl").write_text('{"image": "a.jpg", "caption": "A \\ud800 dog \\ud83d\\udc15"}\n', "utf-8")
    assert references(read_all(tmp_path)[1]) == {"a.jpg": ("A ? dog 🐕",)}


def test_karpathy_splits(tmp_path: Path) -> None:
    photos(tmp_path / "val2014", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    images = [
        {
            "filepath": "val2014",
            "filename": f"{name}.jpg",
            "split": split,
            "cocoid": number,
            "imgid": 0,
            "sentences": [{"raw": f"{name}, one.", "tokens": []}, {"tokens": [name, "two"]}],
        }
        for number, (name, split) in enumerate(zip("abcd", ("train", "restval", "val", "test"), strict=True))
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}), "utf-8")
    name, found, problems = read_all(tmp_path)
    assert (name, problems) == ("karpathy", [])
    assert [record.split for record in found] == ["train", "train", "val", "test"]
    assert found[1].references == ("b, one.", "b two")
    assert (found[1].id, found[1].image) == ("1", tmp_path / "val2014" / "b.jpg")
