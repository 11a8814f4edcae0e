"""The quicker way to pixels: nearly the same numbers, and never an image that the exact way refuses."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from captune.core.errors import CaptuneError, ImageError
from captune.images import batches
from captune.images.batches import check_fast_decoder, decode_fast, read_pixels
from captune.images.open import MAX_PIXELS
from captune.models.backbone import PixelSettings

EXACT = PixelSettings(96, mean=(0.5,) * 3, std=(0.5,) * 3)
FAST = PixelSettings(96, mean=(0.5,) * 3, std=(0.5,) * 3, fast=True)

pytest.importorskip("simplejpeg")


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Soft coloured noise, as smooth as a photo."""
    rng = np.random.default_rng(width + height)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.SMOOTH).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(140, 105), (105, 140), (96, 96), (60, 50), (150, 100)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_nearly_the_exact_pixels(shape: tuple[int, int], mode: str) -> None:
    data = jpeg(photo(*shape, mode))
    assert decode_fast(data, 192, MAX_PIXELS) is not None
    exact, fast = read_pixels(data, EXACT).astype(int), read_pixels(data, FAST).astype(int)
    assert fast.shape == (3, 96, 96)
    assert np.abs(fast - exact).max() <= 2
    assert (fast != exact).mean() < 0.05


def test_large_pictures_are_decoded_at_a_fraction() -> None:
    data = jpeg(photo(1600, 1200))
    exact, fast = read_pixels(data, EXACT).astype(int), read_pixels(data, FAST).astype(int)
    assert np.abs(fast - exact).mean() < 1
    assert np.abs(fast - exact).max() < 12


def test_everything_else_goes_the_exact_way() -> None:
    turned = photo(140, 105)
    exif = turned.getexif()
    exif[batches.ORIENTATION] = 6
    buffer = io.BytesIO()
    photo(50, 40).save(buffer, "PNG")
    for data in (jpeg(turned, exif=exif), jpeg(photo(50, 40, "CMYK")), buffer.getvalue()):
        assert decode_fast(data, 192, MAX_PIXELS) is None
        assert np.array_equal(read_pixels(data, FAST), read_pixels(data, EXACT))
    image = photo(140, 105)
    assert np.array_equal(read_pixels(image, FAST), read_pixels(image, EXACT))


def test_what_the_exact_way_refuses_is_refused(tmp_path: Path) -> None:
    whole = jpeg(photo(200, 160))
    for data, kind in (
        (whole[: len(whole) // 2], "truncated"),
        (whole[: len(whole) // 2] + b"\xff\xd9", "truncated"),
        (whole[:300], "truncated"),
        (b"\xff\xd8\xff", "truncated"),
    ):
        said = []
        for settings in (EXACT, FAST):
            with pytest.raises(ImageError) as caught:
                read_pixels(data, settings)
            said.append((caught.value.kind, caught.value.reason))
        assert said[0] == said[1]
        assert kind in said[0] or "damaged" in said[0], said
    with pytest.raises(ImageError, match="allowed"):
        read_pixels(whole, FAST, max_pixels=1000)
    with pytest.raises(ImageError, match="no such file"):
        read_pixels(tmp_path / "none.jpg", FAST)


def test_without_its_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    with pytest.raises(CaptuneError, match="simplejpeg") as caught:
        check_fast_decoder()
    assert "captune[fast]" in caught.value.hint
