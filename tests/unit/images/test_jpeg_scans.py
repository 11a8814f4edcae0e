"""JPEG files whose scans never end are refused before they are decoded; ordinary ones are not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from captune.core.errors import ImageError
from captune.images.jpeg import MOST_SCANS, has_too_many_scans
from captune.images.open import open_image


def progressive(more: int = 0, between: bytes = b"", mode: str = "RGB", **options: object) -> bytes:
    """A progressive JPEG with its last scan repeated `more` times, `between` before each."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert(mode).save(file, "JPEG", progressive=True, **options)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (between + last) * more + b"\xff\xd9"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("between", [b"", b"\xff\xff", b"no marker", b"\xff\xfe\x00\x05abc", b"\xff\xd0"])
def test_a_jpeg_of_endless_scans_is_refused(mode: str, between: bytes) -> None:
    data = progressive(2000, between, mode)
    with pytest.raises(ImageError, match="scans") as error:
        open_image(data)
    assert error.value.kind == "unsupported"
    assert error.value.hint


def test_a_file_of_endless_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(progressive(2000, exif=b"Exif\0\0" + bytes(60_000)))
    with pytest.raises(ImageError, match="scans"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("more", [0, 50])
def test_a_progressive_jpeg_is_opened(more: int) -> None:
    assert open_image(progressive(more)).size == (256, 256)


def test_what_only_looks_like_scans_does_not_count() -> None:
    # Bytes of a profile, of a thumbnail, and behind the end.
    data = progressive(icc_profile=b"\xff\xda" * 20_000) + b"\xff\xda\x00\x02" * 5000
    assert data.count(b"\xff\xda") > MOST_SCANS
    assert not has_too_many_scans(io.BytesIO(data))
    assert open_image(data).size == (256, 256)
