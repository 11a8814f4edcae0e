"""The model's pixels are transformers' pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from captune.core.errors import CaptuneError
from captune.images.preprocessing import resize_passes, to_pixels
from captune.models.backbone import PixelSettings

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


# transformers calls Pillow's own resize: on older Pillows its pixels are those of rows first, captune's are not.
like_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="transformers itself has other pixels with Pillow before 13"
)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def normalised(image: Image.Image, settings: PixelSettings) -> np.ndarray:
    pixels = to_pixels(image, settings.size, settings.resample, settings.shorter)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, settings.size, settings.size)
    return settings.normalise(torch.from_numpy(pixels)).numpy()


@like_pillow_13
@pytest.mark.parametrize("size", [384, 224, 33])
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (300, 380), (40, 90), (384, 384), (384, 800), (1, 7)])
def test_bit_identical_to_transformers(size: int, shape: tuple[int, int]) -> None:
    processors = pytest.importorskip("transformers.models.blip.image_processing_pil_blip")
    processor = processors.BlipImageProcessorPil(size={"height": size, "width": size})
    image = noise(*shape)
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    ours = normalised(image, PixelSettings(size, mean=CLIP_MEAN, std=CLIP_STD))
    assert ours.dtype == theirs.dtype == np.float32
    assert np.array_equal(ours, theirs)


@like_pillow_13
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (300, 380), (40, 90), (224, 224), (640, 427)])
@pytest.mark.parametrize("sizes", [(224, 224), (96, 110)])
def test_cut_squares_are_those_of_transformers(shape: tuple[int, int], sizes: tuple[int, int]) -> None:
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    size, shorter = sizes
    processor = processors.CLIPImageProcessorPil(
        size={"shortest_edge": shorter}, crop_size={"height": size, "width": size}
    )
    settings = PixelSettings.of(processor)
    assert (settings.size, settings.shorter) == sizes
    theirs = processor(noise(*shape), return_tensors="np")["pixel_values"][0]
    assert np.array_equal(normalised(noise(*shape), settings), theirs)


def test_a_processor_that_does_something_else_is_refused() -> None:
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    odd = processors.CLIPImageProcessorPil(size={"height": 224, "width": 112}, do_center_crop=False)
    with pytest.raises(CaptuneError, match="224"):
        PixelSettings.of(odd)


def test_other_statistics_and_filters() -> None:
    processors = pytest.importorskip("transformers.models.blip.image_processing_pil_blip")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
    processor = processors.BlipImageProcessorPil(
        image_mean=mean, image_std=std, size={"height": 64, "width": 64}, resample=2
    )
    image = noise(101, 53)
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    assert np.array_equal(normalised(image, PixelSettings(64, mean=mean, std=std, resample=2)), theirs)
    assert not np.array_equal(normalised(image, PixelSettings(64, mean=mean, std=std)), theirs)


def test_every_level_by_the_formula() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = normalised(Image.fromarray(np.stack([levels] * 3, -1)), PixelSettings(16, mean=CLIP_MEAN, std=CLIP_STD))
    for channel in range(3):
        expected = (levels / 255 - CLIP_MEAN[channel]) / CLIP_STD[channel]
        np.testing.assert_allclose(pixels[channel], expected, atol=2e-6)


def test_the_order_of_the_passes_is_fixed() -> None:
    assert resize_passes((375, 500), (384, 384)) == ((375, 384), (384, 384))
    assert resize_passes((500, 375), (384, 384)) == ((384, 375), (384, 384))
    assert resize_passes((300, 380), (384, 384)) == ((384, 380), (384, 384))
    # Edges of full contrast are cut to 8 bits between the resize_passes: the order shows.
    image = Image.fromarray((np.random.default_rng(0).integers(0, 2, (90, 40, 3)) * 255).astype(np.uint8))
    other = image.resize((33, 90), Image.Resampling.BICUBIC).resize((33, 33), Image.Resampling.BICUBIC)
    assert not np.array_equal(to_pixels(image, 33), np.asarray(other).transpose(2, 0, 1))


def test_only_rgb() -> None:
    with pytest.raises(ValueError, match="RGB"):
        to_pixels(Image.new("L", (4, 4)), 4)
