"""`captune prepare`: what becomes of rows that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from captune.core.errors import CaptuneError
from captune.datasets.prepare import prepare


def test_reasons_are_shown_and_listed_where_nothing_is_usable(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"image": "a.jpg", "prefix": "x", "suffix": "y"}\n' * 3, "utf-8")
    with pytest.raises(CaptuneError, match="line 1: found the keys image, prefix, suffix") as caught:
        prepare(tmp_path / "data.jsonl", tmp_path / "out")
    assert "and 2 more like it" in caught.value.message
    assert str(tmp_path / "out" / "problems.csv") in caught.value.hint
    assert (tmp_path / "out" / "problems.csv").read_text("utf-8").count("prefix") == 3


def test_captions_that_the_source_rejects_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (8, 6), (ord(name[0]), 9, 9)).save(tmp_path / name)
    rows = "image,caption,is_rejected\na.jpg,fine,False\na.jpg,spam,True\nb.jpg,spam,True\nc.jpg,good,False\n"
    (tmp_path / "data.csv").write_text(rows, "utf-8")
    result = prepare(tmp_path / "data.csv", tmp_path / "out", split="50/50")
    assert sum(count.references for count in result.splits.values()) == 2
    told = " ".join(result.notes)
    assert "Left out: 2 captions that" in told
    assert "Left out: 1 image without a caption" in told


def test_a_bare_stem_that_may_be_two_images(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.webp"):
        Image.new("RGB", (8, 6), (len(name) * 9, 9, 9)).save(tmp_path / name)
    (tmp_path / "meta_cap.json").write_text('{"a": {"caption": "A."}, "b": {"caption": "B."}}', "utf-8")
    result = prepare(tmp_path / "meta_cap.json", tmp_path / "out", on_bad="skip", split="100/0")
    assert [problem.reason for problem in result.problems] == [
        "a is not there, but a.jpg and a.png are, and nothing says which is meant"
    ]
