"""Descriptions that stand in images already: all places are in step, and a person's words stay."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from captune.captions.provenance import Provenance
from captune.captions.writers import CaptionRow, open_writer
from captune.core.files.existing import Mode
from captune.core.records import Caption
from captune.images.metadata import UnsupportedImage, iptc
from captune.images.metadata.files import existing_texts, with_caption
from captune.images.metadata.places import scan_packets
from captune.images.metadata.xmp import Mark, read_texts

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def packet(inner: str) -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about="" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/">{inner}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def says(text: str, language: str = "x-default", name: str = "dc:description") -> bytes:
    return packet(f'<{name}><rdf:Alt><rdf:li xml:lang="{language}">{text}</rdf:li></rdf:Alt></{name}>')


def jpeg(*segments: tuple[int, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (90, 120, 20)).save(file, "JPEG", **options)
    data = file.getvalue()
    made = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return data[:2] + made + data[2:]


def png(*chunks: tuple[bytes, bytes], info: PngImagePlugin.PngInfo | None = None) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "PNG", pnginfo=info)
    data = file.getvalue()
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return data[:33] + made + data[33:]


def itxt(body: bytes) -> tuple[bytes, bytes]:
    return b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + body


def profile(name: str, data: bytes) -> tuple[bytes, bytes]:
    """As ImageMagick writes it."""
    return b"zTXt", f"Raw profile type {name}\0\0".encode() + zlib.compress(
        f"\n{name}\n{len(data):8}\n{data.hex()}\n".encode()
    )


def webp(*chunks: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "WEBP", xmp=chunks[0])
    body = file.getvalue()[8:]
    for one in chunks[1:]:
        body += b"XMP " + struct.pack("<I", len(one)) + one + b"\0" * (len(one) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif(text: str) -> bytes:
    made = Image.Exif()
    made[0x010E] = text
    return made.tobytes()


def with_iptc(text: str) -> tuple[int, bytes]:
    return 0xED, b"Photoshop 3.0\0" + iptc.with_caption(b"", text)


TWO = {
    "jpeg": jpeg((0xE1, _XMP + says("one")), (0xE1, _XMP + says("two"))),
    "jpeg, far apart": jpeg(
        (0xE1, _XMP + says("one")), (0xFE, b"between"), (0xE1, _XMP + packet("")), with_iptc("two")
    ),
    "png": png(itxt(says("one")), itxt(says("two"))),
    "png, compressed": png(itxt(says("one")), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(says("two")))),
    "png, as plain text": png((b"tEXt", b"XML:com.adobe.xmp\0" + says("one")), itxt(says("two"))),
    "png, profile": png(itxt(says("one")), profile("xmp", says("two"))),
    "png, profile of a jpeg": png(itxt(says("one")), profile("APP1", _XMP + says("two"))),
    "png, exif profile": png(itxt(says("one")), profile("exif", exif("two"))),
    "png, iptc profile": png(itxt(says("one")), profile("iptc", iptc.with_caption(b"", "two"))),
    "png, description": png(itxt(says("one")), (b"tEXt", b"Description\0two")),
    "webp": webp(says("one"), says("two")),
    "tiff's name for it": jpeg((0xE1, _XMP + says("two", name="tiff:ImageDescription")), exif=exif("one")),
    "all that a jpeg has": jpeg((0xE1, _XMP + says("one")), with_iptc("two"), exif=exif("three")),
}


@pytest.mark.parametrize("name", TWO)
def test_all_places_are_in_step(name: str) -> None:
    assert {"one", "two"} <= set(existing_texts(TWO[name]))
    made = with_caption(TWO[name], "größer")
    assert existing_texts(made) == ["größer"]
    assert b"two" not in made
    assert with_caption(made, "größer") == made
    for image in (TWO[name], made):
        assert Image.open(io.BytesIO(image)).tobytes() == Image.open(io.BytesIO(TWO[name])).tobytes()


RESOURCE = says("two")
STRAY = {
    "in photoshop's resources": jpeg(
        (
            0xED,
            b"Photoshop 3.0\0"
            + b"8BIM"
            + struct.pack(">HHI", 0x0424, 0, len(RESOURCE))
            + RESOURCE
            + b"\0" * (len(RESOURCE) % 2),
        )
    ),
    "behind the image": jpeg() + says("two"),
    "in another segment": jpeg((0xEF, says("two"))),
    "extended": jpeg(
        (0xE1, _XMP + packet("")),
        *(
            (
                0xE1,
                b"http://ns.adobe.com/xmp/extension/\0"
                + b"A" * 32
                + struct.pack(">II", len(RESOURCE), at)
                + RESOURCE[at : at + 100],
            )
            for at in range(0, len(RESOURCE), 100)
        ),
    ),
}


@pytest.mark.parametrize("name", STRAY)
def test_a_text_that_cannot_be_changed_sends_the_caption_beside(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImage):
        with_caption(STRAY[name], "new")
    path = tmp_path / "a.jpg"
    path.write_bytes(STRAY[name])
    assert existing_texts(STRAY[name]) == ["two"]
    assert len(put(path, "new", "replace")) == 1
    assert path.read_bytes() == STRAY[name]
    assert read_texts((tmp_path / "a.jpg.xmp").read_bytes())[0] == ["new", "new"]


def put(path: Path, text: str, existing: Mode = "keep", out: Path | None = None) -> list[str]:
    with open_writer("xmp", out, in_place=out is None, existing=existing) as writer:
        writer.write(CaptionRow(str(path), (Caption(text, 0.5),), "ok", None, "m"))
    notes: list[str] = writer.notes  # type: ignore[attr-defined]
    return notes


WORDS = {
    **TWO,
    "iptc alone": jpeg(with_iptc("one two")),
    "latin": jpeg((0xED, b"Photoshop 3.0\0" + iptc.with_caption(b"", "X?X one two").replace(b"X?X", b"K\xf6n"))),
    "exif alone": jpeg(exif=exif("one two")),
    "german alone": jpeg((0xE1, _XMP + says("one two", "de"))),
    "alt text alone": png(
        itxt(
            packet(
                "<a:AltTextAccessibility xmlns:a='http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/'>one two"
                "</a:AltTextAccessibility>"
            )
        )
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_persons_description_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(WORDS[name])
    for _ in range(2):
        (note,) = put(path, "a dog")
        assert note.startswith("Kept as they are: 1 caption that captune")
        assert path.read_bytes() == WORDS[name]
    for caption in ("a dog", "a cat", "a cat"):
        assert put(path, caption, "append") == []
        (text,) = words_in_whole(path)
        assert text.endswith(f" {caption}")
        assert (text.count("one"), text.count("two")) == (1, 1)
        assert "a dog" not in text or caption == "a dog"
    put(path, "a lion", "prepend")
    (text,) = words_in_whole(path)
    assert text.startswith("a lion. ")
    assert "a cat" not in text
    before = path.read_bytes()
    assert len(put(path, "a fish")) == 1
    assert path.read_bytes() == before
    assert put(path, "a fish", "replace") == []
    assert words_in_whole(path) == ["a fish"]


def words_in_whole(path: Path) -> list[str]:
    """The one text that stands in every place of a file."""
    from captune.images.metadata.files import _rewrite
    from captune.images.metadata.places import FieldReader

    reading = FieldReader()
    _rewrite(path.read_bytes(), reading)
    return list(dict.fromkeys(reading.texts))


@pytest.mark.parametrize("make", [jpeg, png, lambda: webp(packet(""))])
@pytest.mark.parametrize("text", ["a dog", "ein Hund läuft 🐕", "word " * 1000, "bell \x07 and nul \0"])
def test_captunes_own_are_refreshed_and_corrected_ones_stay(make: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(make())
    for caption in (text, text, "another", text):
        assert put(path, " ".join(caption.split())) == []
    assert existing_texts(path.read_bytes()) == []
    for mark in (Mark("another"), None):  # a program leaves captune's mark as it was, or drops it
        corrected = with_caption(path.read_bytes(), "corrected", mark)
        path.write_bytes(corrected)
        assert len(put(path, "third")) == 1
        assert path.read_bytes() == corrected


def test_the_mark_says_which_model_wrote_a_caption_and_stays_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg((0xE1, _XMP + packet("<tiff:Make>Nikon</tiff:Make>")), exif=exif("by hand")))

    def caption(text: str, date: str, existing: Mode = "append") -> dict[str, str] | None:
        found = (Caption(text, 0.5),)
        noted = Provenance("model", 'runs/"x"', "0f", "ab", date, "1.2").of(found, ["<think>&</think>"])
        with open_writer("xmp", None, in_place=True, existing=existing) as writer:
            writer.write(CaptionRow(str(path), found, "ok", None, "m", provenance=noted))
        (mark,) = marks(path)
        return None if mark is None else dict(mark.noted)

    first = caption("a dog", "2026-03-01")
    assert first == {
        "model": 'runs/"x"',
        "digest": "0f",
        "prompt": "ab",
        "date": "2026-03-01",
        "version": "1.2",
        "ownWords": "<think>&</think>",
    }
    before = path.read_bytes()
    assert caption("a dog", "2026-03-02") == first  # the same caption: written when it was written
    assert path.read_bytes() == before
    assert words_in_whole(path) == ["by hand. a dog"]
    assert (caption("a cat", "2026-03-02") or {})["date"] == "2026-03-02"
    assert words_in_whole(path) == ["by hand. a cat"]
    assert caption("by hand", "2026-03-03") is None  # a person's words, whoever else says them
    assert b"<tiff:Make>Nikon</tiff:Make>" in path.read_bytes()


def marks(path: Path) -> list[Mark | None]:
    """captune's mark in every packet of a file."""
    found: list[Mark | None] = []
    scan_packets(path.read_bytes(), lambda packet: found.append(read_texts(packet)[1]))
    return found


def test_one_place_that_was_corrected_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(exif=exif("OLYMPUS DIGITAL CAMERA         ")))
    assert put(path, "first") == []  # what cameras write is no person's
    assert words_in_whole(path) == ["first"]
    path.write_bytes(path.read_bytes().replace(b"\x02\x78\x00\x05first", b"\x02\x78\x00\x05worst"))
    assert existing_texts(path.read_bytes()) == ["worst"]
    assert len(put(path, "second")) == 1


def test_copies_keep_what_a_person_wrote_in_the_image_or_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = {"plain.jpg": jpeg(), "said.jpg": jpeg((0xE1, _XMP + says("by hand"))), "b.gif": b"GIF89a" + bytes(20)}
    for name, data in images.items():
        Path(name).write_bytes(data)
    Path("b.gif.xmp").write_bytes(says("ein Bild", "de"))
    out = Path("out")
    notes = [put(Path(name), "first", out=out) for name in images]
    assert [len(each) for each in notes] == [0, 1, 1]
    assert Path("out/said.jpg").read_bytes() == images["said.jpg"]
    assert not Path("out/b.gif.xmp").exists()
    assert put(Path("plain.jpg"), "second", out=out) == []
    assert words_in_whole(Path("out/plain.jpg")) == ["second"]
    corrected = with_caption(Path("out/plain.jpg").read_bytes(), "corrected")
    Path("out/plain.jpg").write_bytes(corrected)
    assert len(put(Path("plain.jpg"), "third", out=out)) == 1
    assert Path("out/plain.jpg").read_bytes() == corrected
    put(Path("plain.jpg"), "third", "append", out=out)
    assert words_in_whole(Path("out/plain.jpg")) == ["corrected. third"]
    put(Path("b.gif"), "third", "append", out=out)
    assert read_texts(Path("out/b.gif.xmp").read_bytes())[0] == ["ein Bild. third"] * 2
    assert {name: Path(name).read_bytes() for name in images} == images
