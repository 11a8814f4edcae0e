"""Augmentation depends on seed, epoch and image, on nothing else."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from captune.images.preprocessing import _box, _draws, augment, mentions_sides

OPTIONS = {"crop": 0.4, "flip": True, "color_jitter": 0.3}


def picture() -> Image.Image:
    x, y = np.meshgrid(np.arange(120), np.arange(80))
    return Image.fromarray(np.stack([2 * x, 3 * y, x + y], -1).astype(np.uint8))


def fingerprint(seed: int, epoch: int, key: str) -> str:
    changed = augment(picture(), seed=seed, epoch=epoch, key=key, **OPTIONS)
    return hashlib.sha256(changed.tobytes() + repr(changed.size).encode()).hexdigest()


def test_equal_in_another_process_and_order() -> None:
    keys = ["a.jpg", "b.jpg", "猫"]
    here = [fingerprint(42, 3, key) for key in keys]
    random.seed(1)
    np.random.seed(1)
    assert [fingerprint(42, 3, key) for key in reversed(keys)] == here[::-1]
    code = (
        "import importlib.util, random, sys\nrandom.seed(99)\n"
        "spec = importlib.util.spec_from_file_location('t', sys.argv[1])\n"
        "t = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(t)\n"
        "print(*[t.fingerprint(42, 3, k) for k in ('a.jpg', 'b.jpg', '猫')])"
    )
    done = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True)
    assert done.stdout.split() == here


def test_global_random_state_is_not_touched() -> None:
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    fingerprint(1, 2, "x")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_seed_epoch_and_key_each_matter() -> None:
    assert len({fingerprint(s, e, k) for s in (1, 2) for e in (0, 1) for k in ("a", "b")}) == 8


def test_one_option_never_moves_another() -> None:
    flipped = augment(picture(), seed=0, epoch=0, key="k", flip=True)
    both = augment(picture(), seed=0, epoch=0, key="k", flip=True, crop=0.3)
    alone = augment(picture(), seed=0, epoch=0, key="k", crop=0.3)
    mirrored = flipped.tobytes() != picture().tobytes()
    assert both.size == alone.size
    assert (both.tobytes() != alone.tobytes()) == mirrored


def test_off_means_untouched() -> None:
    assert augment(picture(), seed=0, epoch=0, key="k").tobytes() == picture().tobytes()


@pytest.mark.parametrize("crop", [0.05, 0.3, 0.9])
def test_crops_keep_their_share_and_aspect(crop: float) -> None:
    shares, aspects = [], []
    for epoch in range(400):
        left, top, right, bottom = _box((1000, 600), crop, _draws(0, epoch, "k"))
        assert 0 <= left < right <= 1000
        assert 0 <= top < bottom <= 600
        width, height = right - left, bottom - top
        shares.append(width * height / 600_000)
        aspects.append((width / 1000) / (height / 600))
    assert min(shares) >= 1 - crop - 1e-9
    assert min(shares) < 1 - 0.9 * crop
    assert 0.74 < min(aspects) <= 1 <= max(aspects) < 1.35


def test_half_of_the_pictures_are_mirrored() -> None:
    plain = picture().tobytes()
    count = sum(augment(picture(), seed=0, epoch=0, key=str(k), flip=True).tobytes() != plain for k in range(400))
    assert 160 < count < 240


@pytest.mark.parametrize(
    ("sentence", "tells"),
    [
        ("a dog on the left", True), ("LEFT of the tree", True), ("the rightmost cup", True),
        ("a right-hand glove", True), ("leftmost.", True),
        ("the left-handed man", True), ("a bright red car", False), ("a fright at a cleft", False),
        ("upright piano", False), ("a copyright sign", False), ("", False),
    ],
)  # fmt: skip
def test_no_mirror_image_where_a_side_is_told(sentence: str, tells: bool) -> None:
    assert mentions_sides(["a dog", sentence]) is tells
    plain = picture().tobytes()
    flips = [
        augment(picture(), seed=0, epoch=0, key=str(k), flip=True, references=("x", sentence)).tobytes() != plain
        for k in range(20)
    ]
    assert any(flips) is not tells


def test_colours_change_within_bounds() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    values = [augment(grey, seed=0, epoch=e, key="k", color_jitter=0.2).getpixel((0, 0))[0] for e in range(200)]
    assert 79 <= min(values) < 90
    assert 110 < max(values) <= 121
