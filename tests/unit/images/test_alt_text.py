"""Captions put into images: read back with Pillow and an XML parser, everything else byte for byte as it was."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image, IptcImagePlugin, PngImagePlugin

from captune.captions.writers import CaptionRow, open_writer
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.existing import ExistingCaptions
from captune.core.records import Caption
from captune.images.metadata import UnsupportedImage, exif, iptc
from captune.images.metadata.files import CaptionEdit, with_caption, write_in_place
from captune.images.metadata.xmp import with_caption as in_packet

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
ALT = "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
TEXTS = ["a dog runs", 'Zwei Hunde 🐕 <spielen> & "laufen"', "word " * 1000, "nul \x00 and bell \x07"]
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<!-- kept --><rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5" xmp:Label="a&#10;b">
 <dc:creator xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Seq><rdf:li>Ä &amp; Ö</rdf:li></rdf:Seq></dc:creator>
</rdf:Description>
<rdf:Description rdf:about="" xmlns:d="http://purl.org/dc/elements/1.1/"><d:description><rdf:Alt>
<rdf:li xml:lang="x-default">old</rdf:li><rdf:li xml:lang="de">alt</rdf:li></rdf:Alt></d:description></rdf:Description>
</rdf:RDF></x:xmpmeta>
   <?xpacket end="w"?>"""


def picture(mode: str = "RGB", size: tuple[int, int] = (21, 13)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).rotate(30).convert(mode)


def saved(format: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, format, **options)
    return file.getvalue()


def opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data))


def languages(packet: bytes, tag: str) -> dict[str, str | None]:
    (found,) = ElementTree.fromstring(packet.decode("utf-8-sig").strip()).iter(tag)
    return {item.attrib[LANGUAGE]: item.text for item in found.iter(f"{RDF}li")}


def expected(text: str) -> str:
    return re.sub("[\x00\x07]", "\ufffd", text)


FILES = {
    "jpeg": lambda: saved("JPEG"),
    "progressive": lambda: saved("JPEG", progressive=True, comment="kept"),
    "cmyk": lambda: saved("JPEG", picture("CMYK")),
    "jpeg with all": lambda: saved(
        "JPEG", exif=with_description("old"), icc_profile=b"profile" * 20_000, xmp=PACKET.encode()
    ),
    "png": lambda: saved("PNG"),
    "palette png": lambda: saved("PNG", picture("P"), exif=with_description("old")),
    "webp": lambda: saved("WEBP"),
    "lossless webp": lambda: saved("WEBP", picture("RGBA"), lossless=True),
    "webp with all": lambda: saved(
        "WEBP", picture("RGBA"), exif=with_description("o"), xmp=PACKET.encode(), icc_profile=b"icc"
    ),
    "animated webp": lambda: saved("WEBP", save_all=True, append_images=[picture()]),
    "animated png": lambda: saved("PNG", save_all=True, append_images=[picture()]),
}


def with_description(text: str) -> bytes:
    made = Image.Exif()
    made[0x010E], made[0x0110] = text, "camera"
    made.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return made.tobytes()


@pytest.mark.parametrize("text", TEXTS, ids=["plain", "odd", "long", "control"])
@pytest.mark.parametrize("name", FILES)
def test_what_was_put_in_is_read_back(name: str, text: str) -> None:
    before = FILES[name]()
    after = with_caption(before, text)
    assert with_caption(after, text) == after
    old, new = opened(before), opened(after)
    assert (old.format, old.mode, old.size, old.info.get("icc_profile")) == (
        new.format,
        new.mode,
        new.size,
        new.info.get("icc_profile"),
    )
    assert languages(new.info["xmp"], ALT)["x-default"] == expected(text)
    assert languages(new.info["xmp"], DESCRIPTION)["x-default"] == expected(text)
    for frame in range(getattr(old, "n_frames", 1)):
        old.seek(frame)
        new.seek(frame)
        assert old.tobytes() == new.tobytes()
    if old.getexif():
        assert new.getexif()[0x0110] == "camera"
        assert new.getexif().get_ifd(0x8769) == old.getexif().get_ifd(0x8769)
    if new.format == "JPEG":
        said = IptcImagePlugin.getiptcinfo(new)
        assert said is not None
        assert text.encode().startswith(said[2, 120])
        assert len(said[2, 120]) == min(len(text.encode()), 2000)
        assert said.get((1, 90)) == (None if text.isascii() else b"\x1b%G")


def test_the_compressed_data_are_not_touched() -> None:
    jpeg, png, webp = (with_caption(FILES[name](), "x") for name in ("jpeg", "png", "webp"))
    scan = FILES["jpeg"]().partition(b"\xff\xda")[2]
    assert jpeg.endswith(b"\xff\xda" + scan)
    assert with_caption(FILES["jpeg"]() + b"a film behind it", "x") == jpeg + b"a film behind it"
    for made, original, kind in ((png, FILES["png"](), b"IDAT"), (webp, FILES["webp"](), b"VP8 ")):
        assert made.partition(kind)[2][:150] == original.partition(kind)[2][:150]


def test_other_properties_stay() -> None:
    for data in (
        saved("JPEG", xmp=PACKET.encode()),
        saved("WEBP", xmp=PACKET.encode()),
        png_with_packet(compressed=True),
    ):
        packet = opened(with_caption(data, "new")).info["xmp"]
        assert languages(packet, DESCRIPTION) == {"x-default": "new", "de": "alt"}
        assert languages(packet, ALT) == {"x-default": "new"}
        assert b'xmp:Rating="5" xmp:Label="a&#10;b"' in packet
        assert "<rdf:li>Ä &amp; Ö</rdf:li>".encode() in packet
        assert b"<!-- kept -->" in packet


def png_with_packet(compressed: bool) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", PACKET, zip=compressed)
    info.add_text("Author", "somebody")
    data = saved("PNG", pnginfo=info)
    assert opened(with_caption(data, "x")).text["Author"] == "somebody"
    return data


@pytest.mark.parametrize(
    "inner",
    [
        '<rdf:Description dc:description="plain" rdf:about=""/>',
        "<rdf:Description><dc:description>plain</dc:description></rdf:Description>",
        "<rdf:Description><dc:description><rdf:Bag><rdf:li>x</rdf:li></rdf:Bag></dc:description></rdf:Description>",
        "<rdf:Description><dc:description><rdf:Alt/></dc:description><dc:description>b</dc:description></rdf:Description>",
        "",
    ],
)
def test_properties_in_other_shapes(inner: str) -> None:
    packet = f'<rdf:RDF xmlns:rdf="{RDF[1:-1]}" xmlns:dc="http://purl.org/dc/elements/1.1/">{inner}</rdf:RDF>'.encode()
    made = in_packet(packet, "new")
    assert languages(made, DESCRIPTION) == languages(made, ALT) == {"x-default": "new"}
    assert b"plain" not in made


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta",
        b"\xff\xfe<\0",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a/>',
        b"<a/>",
        PACKET.replace("<!-- kept -->", f"<!-- {'x' * 64_600} -->").encode(),
    ],
)
def test_a_packet_that_cannot_be_kept_is_not_replaced(packet: bytes) -> None:
    # Longer than Pillow writes: put in by hand.
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    data = saved("JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    with pytest.raises(UnsupportedImage):
        with_caption(data, "new")


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_no_cut_makes_a_wrong_file(name: str) -> None:
    """Of a file that ends anywhere: what is made holds its whole image data, or nothing is made."""
    whole = FILES[name]()
    marks = {"jpeg": b"\xff\xda", "png": b"IEND", "webp": b"VP8 "}
    for end in range(12, len(whole)):
        try:
            made = with_caption(whole[:end], "text")
        except UnsupportedImage:
            continue
        assert name == "jpeg"  # whose data after the scan mark may be of any length
        assert made.endswith(whole[whole.index(marks[name]) : end])


def test_iptc_keeps_its_other_datasets() -> None:
    def dataset(record: int, number: int, data: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, number, len(data)) + data

    def resource(number: int, data: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)

    plain = dataset(2, 0, b"\0\2") + dataset(2, 120, b"old") + dataset(2, 25, b"keyword") + dataset(3, 1, b"x")
    block = resource(0x03ED, b"dpi") + resource(0x0404, plain) + resource(0x0425, b"d" * 16)
    made = iptc.with_caption(block, "dog")
    assert made.startswith(resource(0x03ED, b"dpi"))
    assert dataset(2, 25, b"keyword") + dataset(2, 120, b"dog") + dataset(3, 1, b"x") in made
    assert b"old" not in made
    assert b"d" * 16 not in made
    latin = resource(0x0404, dataset(2, 120, b"old") + dataset(2, 25, "Köln".encode("latin-1")))
    kept = iptc.with_caption(latin, "Zürich")
    assert "Köln".encode("latin-1") in kept  # one mark would make both UTF-8
    assert b"old" not in kept
    assert b"\x1b%G" not in kept
    assert dataset(1, 90, b"\x1b%G") in iptc.with_caption(resource(0x0404, dataset(2, 25, "Köln".encode())), "Zürich")
    for damaged in (b"8BIM\4", b"garbage before", resource(0x0404, b"\x1c\2\x78\xff\0")):
        with pytest.raises(UnsupportedImage):
            iptc.with_caption(damaged, "x")


def test_a_jpeg_with_damaged_resources_gets_xmp_alone() -> None:
    body = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\xff\xff"
    data = saved("JPEG")
    data = data[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + data[2:]
    made = with_caption(data, "dog")
    assert body in made
    assert languages(opened(made).info["xmp"], ALT) == {"x-default": "dog"}


@pytest.mark.parametrize("text", ["x", "ab", "abcd", "a much longer description than it was", "größer als vorher"])
@pytest.mark.parametrize("old", ["", "abc", "a description"])
def test_exif_descriptions(old: str, text: str) -> None:
    block = with_description(old)[6:]
    made = exif.with_caption(block, text)
    found = Image.Exif()
    found.load(made)
    assert found[0x0110] == "camera"
    assert found.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
    assert found[0x010E].encode("latin-1").decode() == text
    cut = exif.with_caption(block, text, longest=len(block))
    assert len(cut) <= max(len(block), len(block) if len(text.encode()) > len(old) else 0)
    for end in range(len(block)):
        assert len(exif.with_caption(block[:end], text)) >= end
    assert exif.with_caption(b"no exif", text) == b"no exif"


def test_pictures_behind_the_first_stay_in_reach() -> None:
    """A file with an index of further images (MPO): offsets and sizes move with what was put in."""
    frames = [picture(size=(32, 24)), picture(size=(32, 24)), picture(size=(16, 12))]
    data = saved("MPO", frames[0], save_all=True, append_images=frames[1:])
    end_of_index = data.index(b"\xff\xdb")
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + PACKET.encode()
    behind = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    for before in (data, data[:end_of_index] + behind + data[end_of_index:]):
        after = with_caption(before, "three pictures")
        old, new = opened(data), opened(after)
        assert new.n_frames == 3
        if before is data:  # the other's index was out of step before
            assert new.mpinfo[0xB002][0]["Size"] == old.mpinfo[0xB002][0]["Size"] + len(after) - len(data)
            for frame in range(3):
                old.seek(frame)
                new.seek(frame)
                assert old.tobytes() == new.tobytes()


def test_a_png_chunk_that_would_blow_up() -> None:
    bomb = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 80_000_000)
    data = saved("PNG")
    chunk = struct.pack(">I", len(bomb)) + b"iTXt" + bomb + struct.pack(">I", zlib.crc32(b"iTXt" + bomb))
    with pytest.raises(UnsupportedImage, match="giant"):
        with_caption(data[:33] + chunk + data[33:], "x")


def row(path: object, text: str | None = "a dog") -> CaptionRow:
    if text is None:
        return CaptionRow(str(path), (), "error", "damaged", "m")
    return CaptionRow(str(path), (Caption(text, 0.5),), "ok", None, "m")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    folder.mkdir()
    (folder / "a.jpg").write_bytes(saved("JPEG"))
    (folder / "b.gif").write_bytes(saved("GIF"))
    (folder / "c.jpg").write_bytes(b"\xff\xd8\xff broken")
    for path in folder.iterdir():
        path.chmod(0o640)
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder


def test_copies(photos: Path) -> None:
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    with open_writer("xmp", "out") as writer:
        writer.write(row("photos/a.jpg"))
        writer.write(row("photos/b.gif"))
        writer.write(row("photos/c.jpg", None))
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    copies = sorted(str(path) for path in Path("out").rglob("*.*"))
    assert copies == ["out/photos/a.jpg", "out/photos/b.gif", "out/photos/b.gif.xmp"]
    made = Path("out/photos/a.jpg")
    assert languages(opened(made.read_bytes()).info["xmp"], ALT) == {"x-default": "a dog"}
    assert (made.stat().st_mode & 0o777, made.stat().st_mtime) == (0o640, 1_600_000_000)
    assert Path("out/photos/b.gif").read_bytes() == before["b.gif"]
    assert languages(Path("out/photos/b.gif.xmp").read_bytes(), ALT) == {"x-default": "a dog"}
    (note,) = writer.notes  # type: ignore[attr-defined]
    assert note.startswith("In a .xmp file beside the image: the caption of 1 image")


def test_in_place(photos: Path) -> None:
    broken = (photos / "c.jpg").read_bytes()
    (photos / "b.gif.xmp").write_text(PACKET)
    for _ in range(2):
        with open_writer("xmp", in_place=True, existing="replace") as writer:
            writer.write(row("photos/a.jpg", "ein Hund läuft"))
            writer.write(row("photos/b.gif"))
            writer.write(row("photos/c.jpg", None))
        found = (photos / "a.jpg").stat()
        assert found.st_mode & 0o777 == 0o640
        assert found.st_mtime > 1_700_000_000
        os.utime(photos / "a.jpg", (1_800_000_000, 1_800_000_000))
    assert (photos / "a.jpg").stat().st_mtime == 1_800_000_000  # said already: not touched
    assert (photos / "c.jpg").read_bytes() == broken
    assert languages((photos / "b.gif.xmp").read_bytes(), DESCRIPTION) == {"x-default": "a dog", "de": "alt"}
    assert sorted(path.name for path in photos.iterdir()) == ["a.jpg", "b.gif", "b.gif.xmp", "c.jpg"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root writes files of others")
def test_in_place_keeps_the_owner(photos: Path) -> None:
    os.chown(photos / "a.jpg", 1234, 1234)
    write_in_place(str(photos / "a.jpg"), CaptionEdit("a dog", ExistingCaptions()))
    found = (photos / "a.jpg").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1234, 0o640)


def test_in_place_through_a_link(photos: Path) -> None:
    link = Path("link.jpg")
    link.symlink_to(photos / "a.jpg")
    assert write_in_place(str(link), CaptionEdit("a dog", ExistingCaptions())) is None
    assert link.is_symlink()
    assert languages(opened((photos / "a.jpg").read_bytes()).info["xmp"], ALT) == {"x-default": "a dog"}


def test_where_alt_text_cannot_go(photos: Path) -> None:
    for out, in_place in ((None, False), ("out", True), ("photos/a.jpg", False)):
        with pytest.raises(UsageError):
            open_writer("xmp", out, in_place=in_place)
    with pytest.raises(UsageError, match="goes with --format xmp"):
        open_writer("jsonl", "out", in_place=True)
    with open_writer("xmp", ".") as writer, pytest.raises(CaptuneError, match="would replace it"):
        writer.write(row("photos/a.jpg"))
    with open_writer("xmp", "out") as writer:
        writer.write(row("photos/moved.jpg"))
    assert writer.unwritten == {"photos/moved.jpg": "is no file any more"}  # type: ignore[attr-defined]
    (photos / "b.gif.xmp").write_text("by hand, not XML")
    with open_writer("xmp", in_place=True) as writer:
        writer.write(row("photos/b.gif"))
        writer.write(row("photos/a.jpg"))
    assert (photos / "b.gif.xmp").read_text() == "by hand, not XML"
    assert languages(opened((photos / "a.jpg").read_bytes()).info["xmp"], ALT) == {"x-default": "a dog"}
    with open_writer("xmp", in_place=True, existing="replace") as writer:
        writer.write(row("photos/b.gif"))
    assert languages((photos / "b.gif.xmp").read_bytes(), ALT) == {"x-default": "a dog"}


def test_pictures_that_are_no_files(tmp_path: Path) -> None:
    with open_writer("xmp", tmp_path / "out") as writer:
        writer.write(row("x.parquet#17"), saved("JPEG"))  # type: ignore[call-arg]
        writer.write(row("s3://bucket/../../evil/a.png"), lambda: saved("PNG"))  # type: ignore[call-arg]
    copies = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in copies} == {"x.parquet#17.jpg", "a.png"}
    assert [path for path in tmp_path.rglob("a.png") if "out" not in path.parts] == []
