"""Keywords in images: a person's stay, each stands once, all places are in step, and no other byte moves."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from captune.core.files.existing import ExistingCaptions, Mode
from captune.images.metadata import exif, iptc
from captune.images.metadata.files import (
    CaptionEdit,
    existing_keywords,
    existing_texts,
    with_fields,
    write_copy,
    write_in_place,
)
from captune.images.metadata.keywords import KeywordEdit, KeywordReader, KeywordWriter

DC = "http://purl.org/dc/elements/1.1/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
LONG = "a keyword that is far longer than what the standard of IPTC allows a keyword to have"


def packet(inner: str, attributes: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:dc="{DC}" xmlns:r="urn:r" r:rating="3" {attributes}>{inner}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def bag(*keywords: str, kind: str = "Bag") -> bytes:
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return packet(f"<dc:subject><rdf:{kind}>{items}</rdf:{kind}></dc:subject>")


def iim(*datasets: tuple[int, int, bytes]) -> bytes:
    block = b"".join(struct.pack(">BBBH", 0x1C, record, number, len(data)) + data for record, number, data in datasets)
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + block + b"\0" * (len(block) % 2)


def tiff(keywords: str, order: str = "<") -> bytes:
    text = (keywords + "\0").encode("utf-16-le")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}HHHIII", 1, 0x9E9E, 1, len(text), 26, 0) + text


def jpeg(xmp: bytes | None = None, resources: bytes | None = None, block: bytes | None = None) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (90, 120, 20)).save(file, "JPEG")
    data = file.getvalue()
    parts = [
        (0xE1, b"Exif\0\0", block),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0", xmp),
        (0xED, b"Photoshop 3.0\0", resources),
    ]
    made = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(head + body) + 2) + head + body
        for marker, head, body in parts
        if body is not None
    )
    return data[:2] + made + data[2:]


def saved(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (90, 120, 20)).save(file, format)
    return file.getvalue()


def tag(path: Path, *keywords: str, mode: Mode = "append") -> ExistingCaptions:
    existing = ExistingCaptions(mode)
    write_in_place(str(path), KeywordEdit(keywords, existing))
    return existing


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(bag("Rex", "Dog"), iim((2, 0, b"\0\4"), (2, 25, b"rex"), (2, 80, b"Ann")), tiff("Holiday")))
    return path


def places(path: Path) -> list[list[str]]:
    return existing_keywords(path.read_bytes()).places


def test_all_places_have_a_persons_keywords_and_the_new_ones_once(photo: Path) -> None:
    before = photo.read_bytes()
    tag(photo, "dog", "beach", "Beach")
    assert places(photo) == [["Holiday", "Rex", "Dog", "beach"]], "in EXIF, XMP and IPTC alike"
    data = photo.read_bytes()
    assert b'r:rating="3"' in data
    assert b"\x1c\x02\x50\0\3Ann" in data
    assert data[data.index(b"\xff\xdb") :] == before[before.index(b"\xff\xdb") :], "the image itself"


def test_what_captune_wrote_is_replaced_and_a_persons_keywords_never(photo: Path) -> None:
    tag(photo, "dog", "beach", "sea")
    tag(photo, "sea", "sand")
    assert existing_keywords(photo.read_bytes()).keywords() == ["Holiday", "Rex", "Dog", "sea", "sand"]
    assert existing_keywords(photo.read_bytes()).own == ["sea", "sand"]
    tag(photo)
    assert existing_keywords(photo.read_bytes()).keywords() == ["Holiday", "Rex", "Dog"]
    stamp = os.stat(photo).st_mtime_ns
    tag(photo)
    assert os.stat(photo).st_mtime_ns == stamp, "there was nothing to do"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("keep", ["Holiday", "Rex", "Dog"]),
        ("replace", ["sea", "dog"]),
        ("append", ["Holiday", "Rex", "Dog", "sea"]),
        ("prepend", ["sea", "Holiday", "Rex", "Dog"]),
    ],
)
def test_modes(photo: Path, mode: Mode, expected: list[str]) -> None:
    existing = tag(photo, "sea", "dog", mode=mode)
    assert existing_keywords(photo.read_bytes()).keywords() == expected
    assert existing.preserved == (mode == "keep")


def test_caption_and_keywords_leave_each_other_alone(photo: Path) -> None:
    write_in_place(str(photo), CaptionEdit("a dog runs", ExistingCaptions()))
    tag(photo, "sea")
    write_in_place(str(photo), CaptionEdit("a dog swims", ExistingCaptions()))
    assert existing_keywords(photo.read_bytes()).own == ["sea"]
    assert existing_texts(photo.read_bytes()) == [], "the caption is still captune's"
    assert b"a dog swims" in photo.read_bytes()
    assert b"a dog runs" not in photo.read_bytes()


def test_a_copy_keeps_what_else_was_written_into_it(photo: Path, tmp_path: Path) -> None:
    copy, source = tmp_path / "out" / "photo.jpg", photo.read_bytes()
    write_copy(str(photo), copy, CaptionEdit("a dog runs", ExistingCaptions()))
    write_copy(str(photo), copy, KeywordEdit(["sea"], ExistingCaptions("append")))
    assert b"a dog runs" in copy.read_bytes()
    assert existing_keywords(copy.read_bytes()).keywords() == ["Holiday", "Rex", "Dog", "sea"]
    assert photo.read_bytes() == source
    later = os.stat(copy).st_mtime + 5
    os.utime(photo, (later, later))  # the photo was edited since
    write_copy(str(photo), copy, KeywordEdit(["sea"], ExistingCaptions("append")))
    assert b"a dog runs" not in copy.read_bytes()
    assert existing_keywords(copy.read_bytes()).own == ["sea"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_file_without_keywords_gets_xmp_alone(format: str, tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(saved(format))
    tag(path)
    assert path.read_bytes() == saved(format), "no keywords, no change"
    tag(path, "Größe", "a & b")
    assert places(path) == [["Größe", "a & b"]]
    data = path.read_bytes()
    xmp = ElementTree.fromstring(data[data.index(b"<x:xmpmeta") : data.index(b"<?xpacket end")])
    items = xmp.findall(f".//{{{DC}}}subject/{{{RDF}}}Bag/{{{RDF}}}li")
    assert [item.text for item in items] == ["Größe", "a & b"], "as another reader has it"
    with Image.open(path) as opened:
        assert opened.convert("RGB").tobytes() == Image.open(io.BytesIO(saved(format))).convert("RGB").tobytes()


def test_what_has_no_place_gets_a_packet_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.gif"
    path.write_bytes(saved("GIF"))
    tag(path)
    assert not (tmp_path / "photo.gif.xmp").exists()
    (tmp_path / "photo.gif.xmp").write_bytes(bag("Rex"))
    tag(path, "sea")
    beside = (tmp_path / "photo.gif.xmp").read_bytes()
    assert existing_keywords(b"", beside).keywords() == ["Rex", "sea"]
    assert path.read_bytes() == saved("GIF")
    assert b'r:rating="3"' in beside


@pytest.mark.parametrize(
    "xmp", [packet("", 'dc:subject="Rex"'), packet("<dc:subject>Rex</dc:subject>"), bag("Rex", kind="Seq")]
)
def test_keywords_in_other_shapes(xmp: bytes) -> None:
    made = with_fields(jpeg(xmp), KeywordWriter(["Rex", "sea"], ["sea"]))
    assert existing_keywords(made).places == [["Rex", "sea"]]
    assert made.count(b"Rex") == 1


def test_iptc_in_another_alphabet_keeps_its_bytes() -> None:
    old = iim((2, 25, b"M\xfcnchen"), (2, 120, b"sch\xf6n"))
    reader = KeywordReader()
    reader.iptc(old)
    assert reader.places == [["München"]]
    made = iptc.with_keywords(old, ["München", "Größe", "sea"])
    assert made == iim((2, 25, b"M\xfcnchen"), (2, 25, b"sea"), (2, 120, b"sch\xf6n"))
    assert iptc.with_keywords(iim((2, 120, b"a")), ["Größe"]) == iim(
        (1, 90, b"\x1b%G"), (2, 25, "Größe".encode()), (2, 120, b"a")
    )


def test_a_keyword_that_iptc_had_to_cut_is_no_second_one() -> None:
    data = jpeg(None, iim((2, 25, b"Rex")))
    once = with_fields(data, KeywordWriter(["Rex", LONG], [LONG]))
    assert [len(keyword) for keyword in existing_keywords(once).places[1]] == [3, 64]
    assert existing_keywords(once).keywords() == ["Rex", LONG]
    assert existing_keywords(once).words() == ["Rex"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("new", [["a"], ["Holiday", "sea", "Größe"], []])
def test_xp_keywords(order: str, new: list[str]) -> None:
    block = tiff("Holiday; Rex", order)
    assert exif.xp_keywords(block) == ["Holiday", "Rex"]
    made = exif.with_keywords(block, new)
    assert exif.xp_keywords(made) == new
    image = Image.Exif()
    image.load(b"Exif\0\0" + made)
    assert image[0x9E9E] == (";".join(new) + "\0").encode("utf-16-le"), "as another reader has it"
    assert exif.xp_keywords(exif.with_keywords(block, ["Holiday", "sea" * 99], len(block) + 9)) == ["Holiday"]
