"""Splits are by image, repeatable, and say what they could not do."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError, UsageError
from captune.core.records import ImageRecord
from captune.datasets.splits import assign, parse_ratios, split_by_ratio, split_name

RATIOS = {"train": 0.8, "val": 0.1, "test": 0.1}


def records(count: int = 100, **splits: list[int]) -> list[ImageRecord]:
    said = {number: name for name, numbers in splits.items() for number in numbers}
    return [ImageRecord(f"id{n}", f"/photos/p{n:03}.jpg", ("a",), said.get(n)) for n in range(count)]


def no_official(name: str) -> dict[str, str]:
    raise AssertionError(name)


def test_order_does_not_matter_and_the_seed_does() -> None:
    ids = [f"{n}.jpg" for n in range(1000)]
    shuffled = random.Random(1).sample(ids, len(ids))
    first = split_by_ratio(ids, RATIOS, 42)
    assert split_by_ratio(shuffled, RATIOS, 42) == first
    assert split_by_ratio(ids, RATIOS, 43) != first
    assert Counter(first.values()) == {"train": 800, "val": 100, "test": 100}


def test_the_split_of_a_known_name_never_changes() -> None:
    # Pinned: people publish "80/10/10, seed 42", and it must mean the same in every version.
    found = split_by_ratio([f"{n}.jpg" for n in range(10)], {"train": 0.5, "val": 0.3, "test": 0.2}, 42)
    assert sorted(id for id, split in found.items() if split == "val") == ["0.jpg", "4.jpg", "7.jpg"]
    assert sorted(id for id, split in found.items() if split == "test") == ["5.jpg", "8.jpg"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10, 11, 99, 8091])
def test_sizes_add_up_and_no_split_stays_empty(count: int) -> None:
    sizes = Counter(split_by_ratio(map(str, range(count)), RATIOS, 0).values())
    assert sum(sizes.values()) == count
    if count >= 3:
        assert min(sizes[name] for name in RATIOS) >= 1
    if count >= 10:
        assert all(abs(sizes[name] - share * count) < 1 for name, share in RATIOS.items())
    assert sizes["train"] >= 1


def test_flickr8k_sizes() -> None:
    sizes = Counter(split_by_ratio(map(str, range(8091)), RATIOS, 42).values())
    assert sizes == {"train": 6473, "val": 809, "test": 809}


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("80/10/10", {"train": 0.8, "val": 0.1, "test": 0.1}),
        ("0.8/0.1/0.1", {"train": 0.8, "val": 0.1, "test": 0.1}),
        ("90/10", {"train": 0.9, "val": 0.1}),
        ("33.3/33.3/33.4", {"train": 0.333, "val": 0.333, "test": 0.334}),
    ],
)
def test_ratios(text: str, shares: dict[str, float]) -> None:
    assert parse_ratios(text) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["80/10/20", "8O/10/10", "80/10", "100", "50/20/20/10", "110/-10", "nan/1", "//"])
def test_ratios_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ratios(text)
    assert text in caught.value.message
    assert "80/10/10" in caught.value.hint


def test_auto_takes_what_the_source_says() -> None:
    said = records(10, train=[0, 1, 2], val=[3], test=[4, 5])
    found = assign(said, ("auto",), 42, no_official)
    assert Counter(found.splits.values()) == {"train": 3, "val": 1, "test": 2}
    assert "id9" not in found.splits
    assert "own" in found.how


def test_auto_without_splits_is_80_10_10() -> None:
    found = assign(records(), ("auto",), 42, no_official)
    assert Counter(found.splits.values()) == {"train": 80, "val": 10, "test": 10}
    assert "names no splits" in found.how
    one = assign(records(100, train=list(range(100))), ("auto",), 42, no_official)
    assert one.splits == found.splits
    assert "one split only" in one.how


def test_auto_makes_a_val_split_and_says_so() -> None:
    found = assign(records(100, train=list(range(80)), test=list(range(80, 100))), ("auto",), 42, no_official)
    assert Counter(found.splits.values()) == {"train": 72, "val": 8, "test": 20}
    assert "no val split" in found.notes[0]
    assert "8 of its 80 train images" in found.notes[0]


def test_auto_names_a_missing_test_split() -> None:
    found = assign(records(10, train=[0, 1], val=[2]), ("auto",), 42, no_official)
    assert "no test split" in found.notes[0]


def test_official_splits_go_by_file_name() -> None:
    wanted = {"p000.jpg": "train", "p001.jpg": "dev", "p002.jpg": "test", "gone.jpg": "test"}
    found = assign(records(5), ("flickr8k",), 42, lambda name: wanted)
    assert found.splits == {"id0": "train", "id1": "val", "id2": "test"}
    assert "1 of the 4" in found.notes[0]
    with pytest.raises(CaptuneError, match="names no image of this source"):
        assign(records(5), ("karpathy",), 42, lambda name: {"x.jpg": "train"})


def test_split_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("p000.jpg\n\n# comment\nid1\np002\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("﻿images/p003.jpg\r\nnobody.jpg\r\n", encoding="utf-8")
    found = assign(records(5), (f"train={tmp_path / 'a.txt'}", f"dev={tmp_path / 'b.txt'}"), 42, no_official)
    assert found.splits == {"id0": "train", "id1": "train", "id2": "train", "id3": "val"}
    assert "b.txt, line 2: nobody.jpg" in found.notes[0]


def test_split_files_whose_names_tell_the_split(tmp_path: Path) -> None:
    for name, line in (("Flickr_8k.trainImages", "p000.jpg"), ("Flickr_8k.devImages", "p001.jpg")):
        (tmp_path / f"{name}.txt").write_text(line)
    words = tuple(str(path) for path in sorted(tmp_path.iterdir()))
    assert assign(records(5), words, 42, no_official).splits == {"id1": "val", "id0": "train"}
    (tmp_path / "other.txt").write_text("p000.jpg")
    with pytest.raises(UsageError, match="of which split"):
        assign(records(5), (str(tmp_path / "other.txt"),), 42, no_official)


def test_a_image_in_two_split_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("p000.jpg\n")
    (tmp_path / "b").write_text("p001.jpg\nid0\n")
    with pytest.raises(CaptuneError, match=r"b, line 2: id0 is in test and, by .*a, line 1, in train"):
        assign(records(5), (f"train={tmp_path / 'a'}", f"test={tmp_path / 'b'}"), 42, no_official)


def test_names_that_two_images_share(tmp_path: Path) -> None:
    twins = [ImageRecord("x/1.jpg", "/x/1.jpg", ("a",)), ImageRecord("y/1.jpg", "/y/1.jpg", ("b",))]
    (tmp_path / "a").write_text("1.jpg\n")
    with pytest.raises(CaptuneError, match="More than one image"):
        assign(twins, (f"train={tmp_path / 'a'}",), 42, no_official)
    (tmp_path / "a").write_text("y/1.jpg\n")
    assert assign(twins, (f"train={tmp_path / 'a'}",), 42, no_official).splits == {"y/1.jpg": "train"}


@pytest.mark.parametrize("words", [("flickr9k",), ("train=nothing.txt",), ("80-10-10",), ("80/10/20",)])
def test_words_that_are_not_understood(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        assign(records(5), words, 42, no_official)
    assert "80/10/10" in caught.value.hint


def test_split_names() -> None:
    assert [split_name(n) for n in ("Training", "dev", "validation", "restval", "test", "Extra")] == [
        "train", "val", "val", "train", "test", "extra",
    ]  # fmt: skip
    for bad in ("../x", "a b", ""):
        with pytest.raises(CaptuneError):
            split_name(bad)
