"""The model's pixels are transformers' pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captune.data.pixels import CLIP_MEAN, CLIP_STD, to_pixels


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [384, 224, 33])
@pytest.mark.parametrize("shape", [(500, 375), (40, 90), (384, 384), (1, 7)])
def test_bit_identical_to_transformers(size: int, shape: tuple[int, int]) -> None:
    processors = pytest.importorskip("transformers.models.blip.image_processing_pil_blip")
    processor = processors.BlipImageProcessorPil(size={"height": size, "width": size})
    image = noise(*shape)
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    ours = to_pixels(image, size)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == (3, size, size)
    assert np.array_equal(ours, theirs)


def test_other_statistics_and_filters() -> None:
    processors = pytest.importorskip("transformers.models.blip.image_processing_pil_blip")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
    processor = processors.BlipImageProcessorPil(
        image_mean=mean, image_std=std, size={"height": 64, "width": 64}, resample=2
    )
    image = noise(101, 53)
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(to_pixels(image, 64, mean, std, resample=2), theirs)
    assert not np.array_equal(to_pixels(image, 64), theirs)


def test_every_level_by_the_formula() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = to_pixels(Image.fromarray(np.stack([levels] * 3, -1)), 16)
    for channel in range(3):
        expected = (levels / 255 - CLIP_MEAN[channel]) / CLIP_STD[channel]
        np.testing.assert_allclose(pixels[channel], expected, atol=2e-6)


def test_only_rgb() -> None:
    with pytest.raises(ValueError, match="RGB"):
        to_pixels(Image.new("L", (4, 4)), 4)
