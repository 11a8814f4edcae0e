"""Copies across splits are found, look-alikes are not, and a crowd does not flood the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from captune.images.duplicates import DuplicatePair, find_duplicates
from captune.images.verify import check_image


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Coarse random texture: as much structure as a photo."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def pairs_of(folder: Path, splits: dict[str, str]) -> list[DuplicatePair]:
    names = sorted(splits)
    checks = [check_image(str(folder / name), 10**8) for name in names]
    return find_duplicates(
        names,
        [splits[name] for name in names],
        np.array([int(check["hash"], 16) for check in checks], np.uint64),
        np.array([list(bytes.fromhex(check["thumb"])) for check in checks], np.uint8),
        [check["digest"] for check in checks],
    )


def found(pairs: list[DuplicatePair]) -> set[tuple[str, str]]:
    return {(pair.a, pair.b) for pair in pairs}


@pytest.mark.slow
def test_copies_and_near_copies_across_splits(tmp_path: Path) -> None:
    for number in range(30):
        scene(number).save(tmp_path / f"s{number:02}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "s00.png").read_bytes())
    scene(1).save(tmp_path / "saved.jpg", quality=60)
    scene(2).resize((200, 150)).save(tmp_path / "small.png")
    ImageEnhance.Brightness(scene(3)).enhance(1.01).save(tmp_path / "brighter.webp")
    scene(4).save(tmp_path / "same_split.png")
    test = {"copy.png", "saved.jpg", "small.png", "brighter.webp"}
    splits = {path.name: "test" if path.name in test else "train" for path in tmp_path.iterdir()}
    pairs = pairs_of(tmp_path, splits)
    assert found(pairs) == {
        ("copy.png", "s00.png"), ("s01.png", "saved.jpg"), ("s02.png", "small.png"), ("brighter.webp", "s03.png"),
    }  # fmt: skip
    exact = {(pair.a, pair.b): pair.exact for pair in pairs}
    assert exact["copy.png", "s00.png"] is True
    assert sum(exact.values()) == 1
    assert all(pair.split_a != pair.split_b for pair in pairs)


def test_the_same_shape_in_another_colour_is_another_picture(tmp_path: Path) -> None:
    splits = {}
    for colour in ("red", "green", "blue", "yellow"):
        for place in range(3):
            drawing = Image.new("RGB", (48, 48), (90, 90, 90))
            ImageDraw.Draw(drawing).ellipse((8 + 4 * place, 10, 24 + 4 * place, 26), fill=colour)
            drawing.save(tmp_path / f"{colour}{place}.png")
            splits[f"{colour}{place}.png"] = ("train", "val", "test")[place]
    assert pairs_of(tmp_path, splits) == []


def test_flat_pictures_count_only_when_their_files_are_equal(tmp_path: Path) -> None:
    splits = {}
    for level in range(40):
        Image.new("RGB", (32, 32), (level, level, level)).save(tmp_path / f"{level}.png")
        splits[f"{level}.png"] = "train" if level % 2 else "test"
    (tmp_path / "again.png").write_bytes((tmp_path / "7.png").read_bytes())
    assert found(pairs_of(tmp_path, {**splits, "again.png": "test"})) == {("7.png", "again.png")}


def test_a_thousand_copies_are_a_thousand_lines() -> None:
    count = 1000
    ids = [str(n) for n in range(count)]
    thumbs = np.tile(np.arange(192, dtype=np.uint8), (count, 1))
    hashes = np.full(count, 12345, np.uint64)
    splits = ["train" if n < 900 else "test" for n in range(count)]
    pairs = find_duplicates(ids, splits, hashes, thumbs, ids)
    assert len(pairs) == count - 1
    assert {pair.a for pair in pairs} | {pair.b for pair in pairs} == set(ids)


@pytest.mark.parametrize(
    ("flips", "near"), [((), True), ((0,), True), ((5, 63), True), ((1, 22), True), ((3, 30, 60), False)]
)
def test_every_distance_up_to_two_bits_and_no_more(flips: tuple[int, ...], near: bool) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 500, dtype=np.uint64)
    thumbs = rng.integers(0, 256, (500, 192), dtype=np.uint8)
    hashes[499] = hashes[3]
    for bit in flips:
        hashes[499] ^= np.uint64(1 << bit)
    thumbs[499] = np.clip(thumbs[3].astype(int) + 2, 0, 255)
    ids = [str(n) for n in range(500)]
    pairs = find_duplicates(ids, ["train"] * 499 + ["test"], hashes, thumbs, ids)
    assert [(pair.b, pair.distance) for pair in pairs] == ([("499", len(flips))] if near else [])


@pytest.mark.slow
def test_a_crowd_in_one_bucket_is_searched() -> None:
    rng = np.random.default_rng(1)
    count = 3000
    hashes = rng.integers(0, 8, count, dtype=np.uint64)
    thumbs = rng.integers(0, 256, (count, 192), dtype=np.uint8)
    thumbs[-1] = thumbs[10]
    thumbs[-1, 0] ^= 1
    hashes[-1] = hashes[10]
    ids = [str(n) for n in range(count)]
    pairs = find_duplicates(ids, ["train"] * (count - 1) + ["test"], hashes, thumbs, ids)
    assert found(pairs) == {("10", str(count - 1))}


def test_nothing_to_compare() -> None:
    empty = np.zeros((0, 192), np.uint8)
    assert find_duplicates([], [], np.zeros(0, np.uint64), empty, []) == []
    assert find_duplicates(["a"], ["train"], np.zeros(1, np.uint64), np.zeros((1, 192), np.uint8), ["x"]) == []


def test_hash_sees_structure_not_encoding() -> None:
    from captune.images.verify import difference_hash

    original = scene(5)
    buffer = io.BytesIO()
    original.save(buffer, "JPEG", quality=50)
    again = Image.open(buffer)
    apart = int(difference_hash(original), 16) ^ int(difference_hash(again), 16)
    assert apart.bit_count() <= 2
    other = int(difference_hash(original), 16) ^ int(difference_hash(scene(6)), 16)
    assert other.bit_count() > 10
