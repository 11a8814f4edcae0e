"""Opening images: what is shown must be what was taken, and what cannot be shown must be an error."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from captune.core.errors import CaptuneError, ImageError
from captune.images.open import open_image


def drawn(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A gradient with a bright corner, so that every orientation looks different."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 120, height))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))
    ImageDraw.Draw(image).rectangle((0, 0, width // 4, height // 4), fill=(255, 255, 255))
    return image.convert(mode)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def apart(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_comes_out_upright(orientation: int, kind: str) -> None:
    upright = drawn()
    back = {
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(back[orientation](upright), kind, exif=exif, quality=95)
    opened = open_image(stored)
    assert apart(opened, upright) < 4
    assert not opened.info
    assert not opened.getexif()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("RGB", "BMP"), ("RGB", "WEBP"),
        ("RGB", "AVIF"), ("CMYK", "TIFF"), ("LAB", "TIFF"), ("YCbCr", "TIFF"), ("RGB", "PPM"), ("RGB", "TGA"),
        ("RGB", "JPEG2000"),
        ("P", "GIF"), ("RGB", "ICO"), ("RGB", "PCX"), ("RGB", "SGI"), ("RGB", "DDS"), ("RGB", "QOI"), ("RGB", "ICNS"),
    ],
)  # fmt: skip
def test_common_kinds_show_the_same_picture(mode: str, kind: str) -> None:
    if mode == "LAB":
        stored = encoded(Image.new("LAB", (60, 40), (128, 128, 128)), kind)
        pixel = open_image(stored).getpixel((5, 5))
        assert max(pixel) - min(pixel) <= 3
        return
    size = (64, 64) if kind in ("ICO", "ICNS") else (60, 40)
    original = drawn("RGB", size)
    stored = original.quantize(250) if mode == "P" else original.convert(mode)
    opened = open_image(encoded(stored, kind))
    assert opened.mode == "RGB"
    if mode == "L":
        original = original.convert("L").convert("RGB")
    opened = opened.resize(size) if kind == "ICNS" else opened
    assert apart(opened, original) < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    opened = np.asarray(open_image(encoded(Image.fromarray(ramp), kind)))
    assert np.abs(opened[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_floats_are_scaled_by_their_range() -> None:
    for top in (1.0, 255.0, 70000.0):
        ramp = np.linspace(0, top, 256, dtype=np.float32)[None].repeat(4, 0)
        opened = np.asarray(open_image(encoded(Image.fromarray(ramp), "TIFF")))
        assert np.abs(opened[0, :, 0].astype(int) - np.arange(256)).max() <= 1, top


def test_transparency_lies_on_white() -> None:
    see_through = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert open_image(encoded(see_through, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert abs(open_image(encoded(half, "PNG")).getpixel((0, 0))[0] - 127) <= 1
    assert open_image(encoded(Image.new("LA", (8, 8), (9, 0)), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 3 + [10, 200, 30] + [0, 0, 0] * 252)
    assert open_image(encoded(palette, "PNG")).getpixel((0, 0)) == (10, 200, 30)
    assert open_image(encoded(palette, "PNG", transparency=3)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(palette, "GIF", transparency=3)).getpixel((0, 0)) == (255, 255, 255)


def test_one_bit_and_the_first_frame() -> None:
    assert open_image(encoded(Image.new("1", (9, 9), 1), "PNG")).getpixel((4, 4)) == (255, 255, 255)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        stored = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **{"lossless": True} if kind == "WEBP" else {}
        )
        assert open_image(stored).getpixel((8, 8)) == (255, 0, 0), kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000"])
@pytest.mark.parametrize("share", [0.4, 0.75, 0.97])
def test_a_cut_file_is_an_error(kind: str, share: float) -> None:
    rng = np.random.default_rng(0)
    noisy = Image.fromarray(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
    stored = encoded(noisy, kind)
    assert open_image(stored).size == (160, 120)
    with pytest.raises(ImageError) as caught:
        open_image(stored[: int(len(stored) * share)])
    assert caught.value.kind in ("truncated", "damaged", "unknown")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_cut_jpeg_with_an_end_mark_never_gives_grey_halves(mode: str) -> None:
    stored = encoded(drawn(mode, (320, 240)), "JPEG", quality=90)
    repaired = stored[: len(stored) * 6 // 10] + b"\xff\xd9"
    assert Image.open(io.BytesIO(repaired)).convert("L").getpixel((319, 239)) == 128, "Pillow alone shows grey"
    with pytest.raises(ImageError, match="last rows are missing") as caught:
        open_image(repaired)
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_picture_that_ends_in_grey_opens(progressive: bool) -> None:
    grey = Image.new("RGB", (133, 77), (128, 128, 128))
    ImageDraw.Draw(grey).ellipse((5, 5, 60, 50), fill="white")
    assert open_image(encoded(grey, "JPEG", progressive=progressive)).getpixel((132, 76)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("head", "kind", "words"),
    [
        (b"", "empty", "0 bytes"),
        (b" \n\n", "empty", "blanks"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:7b\nsize 3\n", "pointer", "Git LFS"),
        (b"# xet version 0\nfilesize = 218143\n", "pointer", "git-xet"),
        (b"<!DOCTYPE html><html><title>404</title></html>", "page", "HTML"),
        (b"\n  <HTML><body>Forbidden</body>", "page", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "page", "text"),
        (b"Not found\n", "page", "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "unsupported", "SVG"),
        (b"<?xml version='1.0'?><svg></svg>", "unsupported", "SVG"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(99), "unsupported", "video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported", "PostScript"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "unsupported", "WMF"),
        (b"%PDF-1.7\n", "unsupported", "PDF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "damaged", "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "damaged", "JPEG"),
        (b"\0\0\0\x10ftypmif3avif" + bytes(99), "damaged", "AVIF"),
        (bytes(range(128, 256)) * 4, "unknown", "not an image"),
    ],
)  # fmt: skip
def test_what_is_no_picture_says_what_it_is(tmp_path: Path, head: bytes, kind: str, words: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(head)
    for source in (path, head):
        with pytest.raises(ImageError) as caught:
            open_image(source)
        assert caught.value.kind == kind
        assert words in caught.value.reason
    assert str(path) in ImageError(str(path), "x").message


def test_missing_files_folders_and_pipes(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    for name, kind in (("nothing.jpg", "missing"), (".", "folder"), ("pipe.jpg", "folder"), ("x" * 300, "missing")):
        with pytest.raises(ImageError) as caught:
            open_image(tmp_path / name)
        assert caught.value.kind == kind, name
    with pytest.raises(ImageError):
        open_image("a\0b.jpg")


def test_size_is_checked_before_the_pixels_are_made() -> None:
    stored = encoded(Image.new("1", (3000, 2000)), "PNG")
    with pytest.raises(ImageError, match="3000 × 2000") as caught:
        open_image(stored, max_pixels=5_999_999)
    assert caught.value.kind == "giant"
    assert open_image(stored, max_pixels=6_000_000).size == (3000, 2000)
    bomb = encoded(Image.new("1", (15000, 14000)), "PNG")
    with pytest.raises(ImageError) as caught:
        open_image(bomb)
    assert caught.value.kind == "giant"


def test_an_error_travels_between_processes() -> None:
    error = ImageError("a.jpg", "truncated (…)", "Copy it again.", kind="truncated")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason, copy.hint, copy.kind) == ("a.jpg", "truncated (…)", "Copy it again.", "truncated")
    assert isinstance(copy, CaptuneError)
    assert str(copy) == str(error)


def test_nothing_is_written_to_the_terminal(tmp_path: Path) -> None:
    """Pillow's and libtiff's complaints would tear a progress bar."""
    tiff = bytearray(encoded(drawn(size=(400, 300)), "TIFF", compression="jpeg"))
    for at in range(2000, 3000):
        tiff[at] ^= 0x55
    (tmp_path / "broken.tif").write_bytes(tiff)
    (tmp_path / "large.png").write_bytes(encoded(Image.new("1", (9500, 9500)), "PNG"))
    exif = b"\xff\xd8\xff\xe1\x00\x16Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\0" + encoded(drawn(), "JPEG")[2:]
    (tmp_path / "exif.jpg").write_bytes(exif)
    code = (
        "import sys\nfrom pathlib import Path\nfrom captune.images.open import ImageError, open_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        print(path.name, open_image(path).size)\n"
        "    except ImageError as error:\n        print(path.name, error.kind)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "exif.jpg (60, 40)" in done.stdout
    assert "large.png (9500, 9500)" in done.stdout
