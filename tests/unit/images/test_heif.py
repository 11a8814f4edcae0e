"""HEIC as phones write it: read as other images are, or refused with what is missing."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from captune.core.errors import ImageError
from captune.core.files.existing import ExistingCaptions
from captune.datasets.prepare import prepare
from captune.datasets.prepared import read_split
from captune.datasets.sources.input_shards import list_input_shards, read_images
from captune.images.metadata.files import CaptionEdit, write_in_place
from captune.images.open import open_image, stored_image
from captune.images.signatures import is_heif, suffix_of
from sources import tar, write

pillow_heif = pytest.importorskip("pillow_heif")
HEAD = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


def heic(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, **options)
    return file.getvalue()


def drawn(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (96, 64), (40, 90, 160))
    ImageDraw.Draw(image).rectangle((0, 0, 24, 16), fill="white")
    return image.convert(mode)


def apart(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_once(orientation: int, tmp_path: Path) -> None:
    """Phones state the turn in EXIF as well as in the box that counts."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stands = pillow_heif.from_pillow(drawn())
    stands.info["exif"] = exif.tobytes()
    path = tmp_path / "IMG_0001.HEIC"
    stands.save(path)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's numbers of the same turns
    upright = drawn().transpose(Image.Transpose(back[orientation])) if orientation > 1 else drawn()
    for source in (path, path.read_bytes()):
        opened = open_image(source)
        assert apart(opened, upright) < 6
        assert not opened.info
    assert stored_image(str(path)).orientation == 1
    assert (stored_image(path.read_bytes()).width, stored_image(path.read_bytes()).height) == upright.size


@pytest.mark.parametrize(
    ("mode", "colour", "shown"),
    [
        ("L", 90, (90, 90, 90)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("RGB", (10, 200, 30), (10, 200, 30)),
    ],
)
def test_grey_colour_and_transparency(mode: str, colour: object, shown: tuple[int, ...]) -> None:
    opened = open_image(heic(Image.new(mode, (64, 48), colour)))
    assert opened.mode == "RGB"
    assert np.abs(np.subtract(opened.getpixel((5, 5)), shown)).max() <= 2


@pytest.mark.parametrize("channels", ["L;16", "RGB;16", "RGBA;16"])
@pytest.mark.parametrize("bits", [10, 12])
def test_more_bits_are_scaled_not_clipped(channels: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None].repeat(64, 0)
    ramp = ramp.repeat(channels.index(";"), 2)
    ramp[..., 3:] = 65535
    file = io.BytesIO()
    pillow_heif.from_bytes(channels, (256, 64), ramp.tobytes()).save(file, quality=-1)
    assert pillow_heif.open_heif(file).info["bit_depth"] == bits
    opened = np.asarray(open_image(file.getvalue()))
    assert np.abs(opened[30, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("primary", [0, 2])
def test_of_a_burst_the_primary_picture_is_taken(primary: int) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    burst = pillow_heif.HeifFile()
    for colour in colours:
        burst.add_from_pillow(Image.new("RGB", (64, 64), colour))
    file = io.BytesIO()
    burst.save(file, primary_index=primary)
    assert np.abs(np.subtract(open_image(file.getvalue()).getpixel((9, 9)), colours[primary])).max() <= 2


@pytest.mark.parametrize("share", [0.05, 0.4, 0.75, 0.97])
def test_a_cut_file_is_an_error(share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    whole = heic(Image.fromarray(noise))
    assert open_image(whole).size == (160, 120)
    with pytest.raises(ImageError) as caught:
        open_image(whole[: int(len(whole) * share)])
    assert caught.value.kind == "truncated"


def test_size_is_checked_before_the_pixels_are_made() -> None:
    whole = heic(drawn())
    with pytest.raises(ImageError, match="96 × 64") as caught:
        open_image(whole, max_pixels=96 * 64 - 1)
    assert caught.value.kind == "giant"
    assert open_image(whole, max_pixels=96 * 64).size == (96, 64)
    claims = _resized(whole, 60_000, 60_000)
    with pytest.raises(ImageError, match="60000 × 60000") as caught:
        open_image(claims)
    assert caught.value.kind == "giant"


def test_a_size_that_is_not_the_pictures_is_an_error() -> None:
    for width, height in ((8, 8), (96, 4000), (0, 0)):
        with pytest.raises(ImageError) as caught:
            open_image(_resized(heic(drawn()), width, height))
        assert caught.value.kind == "damaged"


def _resized(file: bytes, width: int, height: int) -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    said = re.sub(rb"(ispe\0\0\0\0).{8}", lambda found: found[1] + size, file, flags=re.DOTALL)
    assert said != file
    return said


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"ftypheic", b"ftypmif1"), b"\0\0\0\x10ftypmif3heic"])
def test_garbage_behind_its_name_is_an_error(head: bytes) -> None:
    assert is_heif(head)
    with pytest.raises(ImageError) as caught:
        open_image(head + bytes(99))
    assert caught.value.kind in ("damaged", "truncated")


def test_another_codec_in_the_same_box_says_so() -> None:
    avif = io.BytesIO()
    drawn().save(avif, "AVIF")
    assert not is_heif(avif.getvalue()[:64])
    renamed = avif.getvalue().replace(b"avif", b"mif1", 1).replace(b"avif", b"heic", 1)
    with pytest.raises(ImageError, match="not decoded") as caught:
        open_image(renamed)
    assert caught.value.kind == "unsupported"


def test_without_the_extra_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(heic(drawn()))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / "photo.jpg")
    assert caught.value.kind == "unsupported"
    assert "pip install 'captune[heic]'" in caught.value.reason  # a row of a job has no hint
    assert "pip install 'captune[heic]'" in caught.value.hint


def test_it_has_its_own_ending() -> None:
    assert suffix_of(heic(drawn())) == ".heic"
    avif = io.BytesIO()
    drawn().save(avif, "AVIF")
    assert suffix_of(avif.getvalue()) == ".avif"


def test_a_caption_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(before := heic(drawn()))
    assert write_in_place(str(path), CaptionEdit("a white corner", ExistingCaptions())) is not None
    assert path.read_bytes() == before
    assert "a white corner" in (tmp_path / "photo.heic.xmp").read_text()


def test_a_sequence_without_a_still_picture_says_so() -> None:
    sequence = b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc" + b"\0\0\0\x74moov" + b"\0\0\0\x6cmvhd" + bytes(100)
    with pytest.raises(ImageError, match="without a still image") as caught:
        open_image(sequence)
    assert caught.value.kind == "unsupported"


def test_in_folders_tars_and_tables(tmp_path: Path) -> None:
    data = heic(drawn())
    for name in ("folder/IMG_1.HEIC", "folder/deep/IMG_2.heif", "folder/IMG_3.hif"):
        write(tmp_path / name, data)
    tar(tmp_path / "a.tar", {"1.heic": data, "1.txt": "a white corner"})
    pq.write_table(pa.table({"image": [{"bytes": data, "path": "1.heic"}], "caption": ["a"]}), tmp_path / "a.parquet")
    given = [str(tmp_path / name) for name in ("folder", "a.tar", "a.parquet")]
    sources = [image.source for shard in list_input_shards(given) for image in read_images(shard)]
    assert len(sources) == 5
    for source in sources:
        assert isinstance(source, (str, bytes))
        assert apart(open_image(source), drawn()) < 6


@pytest.mark.parametrize("kind", ["sidecars", "tar", "parquet"])
def test_prepared(kind: str, tmp_path: Path) -> None:
    """Opened in processes of their own, as training opens them later; out of archives with their ending."""
    files = {f"{n}.heic": heic(drawn().rotate(30 * n)) for n in range(3)}
    source = tmp_path / "source"
    if kind == "sidecars":
        for name, data in files.items():
            write(source / name, data)
            write(source / f"{name[0]}.txt", "a white corner")
    elif kind == "tar":
        tar(source / "a.tar", {**files, **{f"{n}.txt": "a white corner" for n in range(3)}})
    else:
        write(source / "x", b"")
        pq.write_table(
            pa.table({"image": list(files.values()), "caption": ["a white corner"] * 3}), source / "a.parquet"
        )
    prepare(source, tmp_path / "out")
    images = [record.image for split in ("train", "val", "test") for record in read_split(tmp_path / "out", split)]
    assert len(images) == 3
    for image in images:
        assert Path(image).suffix == ".heic"
        assert open_image(image).size == (96, 64)
