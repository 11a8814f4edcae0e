"""Sheets: a page and a picture with thumbnails and captions; nothing of a person's is written over."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from captune.core.errors import UsageError
from captune.images.lettering import font_of, lacks, wrapped
from captune.library.duplicates import DuplicateGroup, DuplicateImage
from captune.library.found import DuplicateGroups, FoundImages
from captune.library.search import FoundImage


@pytest.fixture
def found(tmp_path: Path) -> FoundImages:
    """Seven images, of which one is not there and one is a link that leads out of the folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (300, 200), colour).save(folder / name)
    Image.new("RGB", (300, 200), "green").save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    names = ["red.png", "blue.png", "link.png", "gone.png", "red.png", "red.png", "red.png"]
    captions = ['<b>red</b> & "so"', "a long caption " * 20, "", "雪", "four", "five", "six"]
    return FoundImages([FoundImage(n, name, captions[n], 1.0) for n, name in enumerate(names)], folder)


def test_a_page_is_whole_in_one_file(found: FoundImages, tmp_path: Path) -> None:
    found.write_sheet(tmp_path / "sheet.html", "<i>dogs</i>")
    page = (tmp_path / "sheet.html").read_text()
    assert "<h1>&lt;i&gt;dogs&lt;/i&gt;</h1>" in page
    assert 'alt="&lt;b&gt;red&lt;/b&gt; &amp; &quot;so&quot;"' in page
    assert "<b>" not in page
    assert page.count('src="data:image/jpeg;base64,') == page.count("<img") == 5
    assert page.count("src=") == 5
    assert page.count("no caption") == 1
    assert "http" not in page


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG"])
def test_a_picture_has_rows_of_five(found: FoundImages, tmp_path: Path, name: str) -> None:
    found.write_sheet(tmp_path / name)
    with Image.open(tmp_path / name) as sheet:
        assert sheet.format == ("PNG" if name.endswith("png") else "JPEG")
        assert sheet.size == (5 * 256 + 16, 2 * 310 + 16)
        red, blue, outside, below = (sheet.getpixel(at) for at in ((136, 136), (392, 136), (648, 136), (136, 446)))
    assert red[0] > 240 > 20 > red[1]
    assert blue[2] > 240 > 20 > blue[0]
    assert set(outside) <= set(range(230, 245))
    assert below[0] > 240 > 20 > below[1]
    found[:2].write_sheet(tmp_path / name)  # captune's own sheet is written over
    with Image.open(tmp_path / name) as sheet:
        assert sheet.size == (2 * 256 + 16, 310 + 16)
    found[:0].write_sheet(tmp_path / name)


def test_other_files_are_not_written_over(found: FoundImages, tmp_path: Path) -> None:
    photo = (tmp_path / "outside.png").read_bytes()
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    (tmp_path / "no.jpg").write_bytes(b"no image")
    for name in ("outside.png", "mine.html", "no.jpg"):
        with pytest.raises(UsageError, match="is there already"):
            found.write_sheet(tmp_path / name)
    assert (tmp_path / "outside.png").read_bytes() == photo
    with pytest.raises(UsageError, match="would be one of its images"):
        found.write_sheet(found.folder / "sheet.jpg")
    found.write_sheet(found.folder / "sheet.html")
    with pytest.raises(UsageError, match="neither a page nor a picture"):
        found.write_sheet(tmp_path / "sheet.pdf")
    many = FoundImages([found[0]] * 501, found.folder)
    with pytest.raises(UsageError, match=r"501 images are too many .*: at most 500") as error:
        many.write_sheet(tmp_path / "many.jpg")
    assert "many.html" in error.value.hint


def test_groups_stand_apart_on_a_page(tmp_path: Path) -> None:
    one = DuplicateImage(1, "a.png", "", 1, 1, 1, True, 0)
    groups = DuplicateGroups([DuplicateGroup((one, one)), DuplicateGroup((one, one, one))], tmp_path)
    groups.write_sheet(tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert [part.count("<figure>") for part in page.split("<section")] == [0, 2, 3]
    assert groups._repr_html_().count("<section") == 2


def test_lines_fit() -> None:
    font = font_of(14)
    text = "short words and Pneumonoultramicroscopicsilicovolcanoconiosis " + "雪" * 50
    lines = wrapped(text, font, 120)
    assert max(map(font.getlength, lines)) <= 120
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped(text, font, 120, 2) == [lines[0], wrapped(text, font, 120, 2)[1]]
    assert wrapped(text, font, 120, 2)[1].endswith("…")
    assert wrapped("", font, 120) == [""]
    assert wrapped("ab", font, 1) == ["a", "b"]
    assert lacks(font, "\U00012345")
    assert not lacks(font, "plain, äöü")
