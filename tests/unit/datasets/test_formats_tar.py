"""Tar shards: which text is for which image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captune.captions.writers import CaptionRow, open_writer
from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.datasets.formats import find_format
from captune.datasets.sources.input_shards import list_input_shards, read_images
from sources import jpeg, records, tar


def test_webdataset_shards(tmp_path: Path) -> None:
    tar(
        tmp_path / "train-000.tar",
        {
            "./0001.jpg": jpeg(1),
            "./0001.txt": "A dog, a cat\nAgain",
            "./0001.json": '{"caption": "not this"}',
            "0002.json": json.dumps({"captions": ["Ünicode", "Two"], "width": 3}),
            "0002.png": jpeg(2, "PNG"),
            "0002.cls": "7",
            "sub/0002.caption": "Fish",
            "sub/0002.jpeg": jpeg(3),
            "0004.jpg": jpeg(4),
            "0005.txt": "no image",
            "0006.jpg": jpeg(6),
            "0006.txt": b"caf\xe9",
        },
    )
    tar(tmp_path / "val-000.tar", {"0001.jpg": jpeg(5), "0001.txt": "A bird"})
    name, found, contents, problems = records(tmp_path)
    assert name == "webdataset"
    assert [(record.id, record.split, record.references) for record in found] == [
        ("train-000/0001", "train", ("A dog, a cat", "Again")),
        ("train-000/0002", "train", ("Ünicode", "Two")),
        ("train-000/sub/0002", "train", ("Fish",)),
        ("val-000/0001", "val", ("A bird",)),
    ]
    assert contents == [jpeg(1), jpeg(2, "PNG"), jpeg(3), jpeg(5)]
    assert len({record.image.name for record in found}) == 4  # type: ignore[union-attr]
    assert [problem.where for problem in problems] == [f"train-000.tar, sample 000{n}" for n in (4, 5, 6)]
    assert len(records(tmp_path / "{train,val}-{000..000}.tar")[1]) == 4
    for pattern, said in (
        ("{train,val}-{000..001}.tar", "2 of the 4 files .* are missing: .*train-001.tar, .*val-001.tar"),
        ("train-{000..009}.tar", "9 of the 10 .*train-003.tar and 6 more"),
        ("{train,test}-*.tar", r"1 of the 2 .*test-\*.tar"),
        ("{test,dev}-{000..001}.tar", "No file matches"),
    ):
        with pytest.raises(CaptuneError, match=said):
            records(tmp_path / pattern)
    assert len(records(tmp_path / "val-000.tar")[1]) == 1


def test_webdataset_gzipped_and_cut_off(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar.gz", {"1.jpg": jpeg(1), "1.txt": "A dog"}, "w:gz")
    assert records(tmp_path)[0] == "webdataset"
    tar(
        tmp_path / "b.tar",
        {f"{n}.{kind}": jpeg(n) if kind == "jpg" else "A" for n in range(9) for kind in ("jpg", "txt")},
    )
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:7000])
    name, found, _, problems = records(tmp_path / "b.tar")
    assert name == "webdataset"
    assert 0 < len(found) < 9
    assert any("cut off" in problem.reason for problem in problems)


def test_texts_go_to_the_images_of_their_names(tmp_path: Path) -> None:
    """Dots in names, masks beside images, several images for one text: taken or told, never dropped."""
    tar(
        tmp_path / "a.tar",
        {
            "22.00.JPG": jpeg(1), "22.00.TXT": "A dog", "22.01.jpg": jpeg(2), "22.01.txt": "A cat",
            "v1.2/x.jpg": jpeg(3), "v1.2/x.seg.png": jpeg(4, "PNG"), "v1.2/x.txt": "A bird",
            "s.left.jpg": jpeg(5), "s.right.jpg": jpeg(6), "s.txt": "A fish",
            "one.image.jpg": jpeg(7), "one.text.txt": "A horse",
        },
    )  # fmt: skip
    _, found, contents, problems = records(tmp_path / "a.tar")
    assert {(record.id, *record.references) for record in found} == {
        ("a/22.00", "A dog"), ("a/22.01", "A cat"), ("a/v1.2/x", "A bird"), ("a/s", "A fish"), ("a/one", "A horse"),
    }  # fmt: skip
    assert contents == [jpeg(n) for n in (1, 2, 3, 5, 7)]
    assert [problem.where for problem in problems] == ["a.tar, v1.2/x.seg.png", "a.tar, s.right.jpg"]
    assert "went to s.left.jpg" in problems[1].reason


@pytest.mark.parametrize(
    "said",
    [
        {"0.jpg": "A dog", "1.jpg": ["A cat", "Again"]},
        {"img.0.jpg": "A dog", "img.1.jpg": {"captions": ["A cat", "Again"]}},
        {"captions": {"0": "A dog", "1": ["A cat", "Again"]}, "license": "CC0"},
        [{"file_name": "img.1.jpg", "captions": ["A cat", "Again"]}, {"file_name": "img.0.jpg", "captions": ["A dog"]}],
    ],
)
def test_json_with_captions_of_several_images(tmp_path: Path, said: Any) -> None:
    tar(tmp_path / "a.tar", {"img.0.jpg": jpeg(0), "img.1.jpg": jpeg(1), "img.json": json.dumps(said)})
    _, found, _, problems = records(tmp_path)
    assert {record.id: record.references for record in found} == {"a/img.0": ("A dog",), "a/img.1": ("A cat", "Again")}
    assert problems == []


@pytest.mark.parametrize(
    "texts", [{"img.json": json.dumps({"captions": ["A dog", "A cat"]})}, {"img.txt": "A dog\nA cat"}]
)
def test_as_many_captions_as_images_are_no_ones(tmp_path: Path, texts: dict[str, str]) -> None:
    images = {"img.0.jpg": jpeg(0), "img.1.jpg": jpeg(1), "z.jpg": jpeg(2), "z.txt": "A bird"}
    tar(tmp_path / "a.tar", images | texts)
    _, found, _, problems = records(tmp_path)
    assert [record.references for record in found] == [("A bird",)]
    assert {problem.where for problem in problems} == {"a.tar, img.0.jpg", "a.tar, img.1.jpg"}
    assert "does not say whose is which" in problems[0].reason


def test_keys_of_an_ordinary_json_are_no_names(tmp_path: Path) -> None:
    row = {"image": "photos/1.jpg", "caption": "A dog", "text": "A dog"}
    tar(tmp_path / "a.tar", {"x.image.jpg": jpeg(0), "x.mask.png": jpeg(1, "PNG"), "x.json": json.dumps(row)})
    _, found, contents, problems = records(tmp_path)
    assert [record.references for record in found] == [("A dog",)]
    assert contents == [jpeg(0)]
    assert [problem.where for problem in problems] == ["a.tar, x.mask.png"]


def test_of_several_texts_none_is_chosen(tmp_path: Path) -> None:
    texts = {"x.words.txt": "A dog", "x.ocr.txt": "STOP", "y.txt": "A cat", "y.ocr.txt": "GO"}
    tar(tmp_path / "a.tar", {"x.image.jpg": jpeg(0), "y.image.jpg": jpeg(1), **texts})
    _, found, _, problems = records(tmp_path)
    assert [record.references for record in found] == [("A cat",)]
    assert problems[0].where == "a.tar, x.image.jpg"
    assert "no text of sample x names this image (x.words.txt, x.ocr.txt)" in problems[0].reason


def test_what_captune_wrote_is_read_back(tmp_path: Path) -> None:
    """`--format tar` of a tar with dots in its names."""
    tar(tmp_path / "in.tar", {"22.00.jpg": jpeg(0), "22.01.jpg": jpeg(1), "22.01.png": jpeg(2, "PNG")})
    with open_writer("tar", tmp_path / "out") as writer:
        (shard,) = list_input_shards([str(tmp_path / "in.tar")])
        rows = [
            CaptionRow(image.name, (Caption(f"caption {n}", 0.5),), "ok", None, "m")
            for n, image in enumerate(read_images(shard))
        ]
        writer.write_shard(shard, rows)  # type: ignore[attr-defined]
    _, found, contents, problems = records(tmp_path / "out")
    assert [record.references for record in found] == [("caption 0",), ("caption 1",), ("caption 2",)]
    assert (contents, problems) == ([jpeg(0), jpeg(1), jpeg(2, "PNG")], [])


def test_a_shard_whose_texts_stand_apart_from_its_images(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {f"{n}.jpg": jpeg(n) for n in range(3)} | {f"{n}.txt": f"text {n}" for n in range(3)})
    _, found, contents, problems = records(tmp_path)
    assert [record.references for record in found] == [("text 0",), ("text 1",), ("text 2",)]
    assert (contents, problems) == ([jpeg(0), jpeg(1), jpeg(2)], [])


def test_texts_of_a_shard_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    bad = {
        "utf16": "Ünicode".encode("utf-16"), "latin": b"caf\xe9", "zero": b"a\0b", "empty": b" \n",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:7b\n",
    }  # fmt: skip
    tar(
        tmp_path / "a.tar",
        {
            f"{name}.{kind}": data
            for name, text in bad.items()
            for kind, data in (("jpg", jpeg(len(name))), ("txt", text))
        },
    )
    _, found, _, problems = records(tmp_path)
    assert [record.references for record in found] == [("Ünicode",)]
    assert [problem.reason for problem in problems] == [
        "its caption is not UTF-8 (byte 0xe9 at offset 3)",
        "its caption is no text: it holds zero bytes",
        "its caption is empty",
        "its caption is a Git LFS pointer, not the text itself (git lfs pull)",
    ]


def test_a_tar_of_images_alone_is_no_data_set(tmp_path: Path) -> None:
    tar(tmp_path / "images.tar", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    with pytest.raises(CaptuneError, match="No captions were recognised"):
        find_format(tmp_path)
    with pytest.raises(CaptuneError, match=r"holds no caption that can be used:\n  images.tar"):
        records(tmp_path / "images.tar")
