"""The quicker way to pixels over real photos and over files that are not what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from captune.core.errors import ImageError
from captune.images.batches import read_pixels
from captune.models.backbone import PixelSettings

EXACT = PixelSettings(384, mean=(0.5,) * 3, std=(0.5,) * 3)
FAST = PixelSettings(384, mean=(0.5,) * 3, std=(0.5,) * 3, fast=True)

pytestmark = pytest.mark.real
pytest.importorskip("simplejpeg")


def test_photos_differ_by_two_levels_at_most(test_data: Path) -> None:
    photos = [
        *sorted((test_data / "flickr8k" / "original").iterdir())[:40],
        *(test_data / "coco" / "val2017").iterdir(),
    ]
    differences = [np.abs(read_pixels(p, EXACT).astype(int) - read_pixels(p, FAST)) for p in photos]
    assert max(difference.max() for difference in differences) <= 2
    assert np.mean([(difference > 0).mean() for difference in differences]) < 0.005


def test_odd_files_end_the_same_way(test_data: Path) -> None:
    files = [p for p in sorted((test_data / "odd").rglob("*")) if p.is_file() and p.suffix.lower() in (".jpg", ".jpeg")]
    assert len(files) > 20

    def ending(path: Path, settings: PixelSettings) -> tuple[str, np.ndarray | None]:
        try:
            return "read", read_pixels(path, settings, 20_000_000)
        except ImageError as error:
            return f"{error.kind}: {error.reason}", None

    for path in files:
        (said, exact), (also, fast) = ending(path, EXACT), ending(path, FAST)
        assert said == also, path.name
        if exact is not None and fast is not None:
            assert np.abs(exact.astype(int) - fast).mean() < 2, path.name
