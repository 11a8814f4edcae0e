"""What a file says about its image: files whose metadata ExifTool 12.57 wrote (see `tagged/`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from captune.core.errors import CaptuneError
from captune.core.files.existing import LEDGER, Ledger, digest
from captune.images.metadata.fields import IPTC, NAMES, READ, check_field, read_fields
from captune.images.metadata.files import with_caption
from captune.images.metadata.xmp import Mark

TAGGED = Path(__file__).parent / "tagged"
PHOTO = {
    "stem": "photo",
    "folder": "tagged",
    "tags": "dog, sea, calm, sand",
    "existing": "Two dogs at the sea.",
    "names": "Anna Ærø, Ben",  # Rex is a pet
    "place": "Seefeld, Zürich, Switzerland",  # the state has the city's name
    "date": "2019-05-04",
    "exif.Make": "NIKON",
    "exif.Model": "NIKON D90",
    "exif.LensModel": "50mm f/1.8",
    "exif.FNumber": "2.8",
    "exif.ExposureTime": "1/250 s",
    "exif.ISO": "200",
    "exif.FocalLength": "50 mm",
    "exif.Flash": "fired",
    "exif.WhiteBalance": "manual",
    "exif.DateTimeOriginal": "2019-05-04 12:30:00",
    "exif.UserComment": "by the sea",
    "exif.GPSLatitude": "52.52° N",
    "exif.GPSLongitude": "13.405° W",
    "exif.GPSAltitude": "34.5 m",
    "exif.GPSTimeStamp": "10:30:00",
    "exif.XPKeywords": "sand;dog",
    "exif.Artist": "",
    "iptc.City": "Zürich",
    "iptc.Country": "Switzerland",
    "iptc.Sub-location": "Seefeld",
    "iptc.Headline": "Dogs",
    "iptc.By-line": "Dana",
    "iptc.Caption-Abstract": "Two dogs at the sea.",
    "iptc.ObjectName": "",
}


def read(source: str | bytes | Path, *fields: str, name: str | None = None) -> dict[str, str]:
    checked = {field: check_field(field) for field in fields}
    source = str(source) if isinstance(source, Path) else source
    found = read_fields(source, name or (source if isinstance(source, str) else ""), list(checked.values()))
    return {field: found[own] for field, own in checked.items()}


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.tif"])
def test_fields_of_a_file_and_of_its_bytes(name: str) -> None:
    assert read(TAGGED / name, *PHOTO) == PHOTO
    data = (TAGGED / name).read_bytes()
    assert read(data, *PHOTO, name=f"shards/a.tar/dir/{name}") == {**PHOTO, "folder": "dir"}


def test_iptc_alone() -> None:
    found = read(TAGGED / "iptc.jpg", *READ, *(f"iptc.{name}" for name in IPTC))
    assert {name: text for name, text in found.items() if text} == {
        "tags": "ship, port",
        "existing": "Ships in the port.",
        "place": "Port, Málaga, Andalusia, Spain",
        "date": "2018-07-01",
        "iptc.ObjectName": "Port",
        "iptc.Keywords": "ship, port",
        "iptc.DateCreated": "20180701",
        "iptc.Byline": "Eva",
        "iptc.City": "Málaga",
        "iptc.Sublocation": "Port",
        "iptc.State": "Andalusia",
        "iptc.Country": "Spain",
        "iptc.Headline": "Ships",
        "iptc.Caption": "Ships in the port.",
    }


def test_regions_of_microsoft_and_keywords_of_windows() -> None:
    found = read(TAGGED / "microsoft.jpg", "names", "tags")
    assert found == {"names": "Carla, Anna Ærø", "tags": "sand, dog"}


@pytest.mark.parametrize("packet", ["photo.jpg.xmp", "photo.xmp"])
def test_a_packet_beside_an_image(tmp_path: Path, packet: str) -> None:
    shutil.copy(TAGGED / "beside.jpg", tmp_path / "photo.jpg")
    shutil.copy(TAGGED / "beside.jpg.xmp", tmp_path / packet)
    found = read(tmp_path / "photo.jpg", *READ)
    assert found == {"tags": "night", "existing": "A lamp.", "names": "Finn", "place": "Oslo", "date": "2020-01"}


def test_an_image_that_pillow_opened() -> None:
    with Image.open(TAGGED / "photo.jpg") as image:
        found = read_fields(image, "", ["names", "exif.Model", "place", "stem"])
    assert found == {
        "names": "Anna Ærø, Ben",
        "exif.Model": "NIKON D90",
        "place": "Seefeld, Zürich, Switzerland",
        "stem": "",
    }


def test_the_text_beside_an_image_comes_before_its_description(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    shutil.copy(TAGGED / "photo.jpg", photo)
    (tmp_path / "photo.caption").write_text("Two dogs.\n")
    assert read(photo, "existing") == {"existing": "Two dogs."}
    (tmp_path / "photo.txt").write_bytes("\ufeffRex  and\r\nhis friend.\r\nwritten by captune\r\n".encode())
    Ledger(tmp_path / LEDGER).add([digest("photo.txt", "written by captune")])
    assert read(photo, "existing") == {"existing": "Rex and his friend."}


def test_what_captune_wrote_is_no_existing_text() -> None:
    data = (TAGGED / "microsoft.jpg").read_bytes()
    assert read(with_caption(data, "a sea", Mark("a sea")), "existing") == {"existing": ""}


def test_damaged_metadata_are_empty_fields() -> None:
    data = (TAGGED / "photo.jpg").read_bytes()
    torn = data.replace(b"<rdf:RDF", b"<rdf:RDX").replace(b"MM\0*", b"MM\0\0").replace(b"II*\0", b"II\0\0")
    assert torn != data
    assert set(read(torn, *READ, "exif.Model", "iptc.City").values()) == {""}
    for end in range(0, len(data), 97):  # cut off anywhere: no crash
        read(data[:end], *PHOTO)
    assert set(read(b"no image", *READ).values()) == {""}
    assert read("no such.jpg", "stem", "names") == {"stem": "no such", "names": ""}


@pytest.mark.parametrize(
    ("name", "stem", "folder"),
    [
        ("cats/tom.jpg", "tom", "cats"),
        ("tom.jpg", "tom", Path.cwd().name),
        ("shards/a.tar/tom.jpg", "tom", ""),
        ("data.parquet#12/own.png", "own", ""),
        ("https://example.org/cats/tom.jpg?size=1", "tom", "cats"),
    ],
)
def test_the_name_of_an_image(name: str, stem: str, folder: str) -> None:
    assert read_fields(b"", name, NAMES) == {"stem": stem, "folder": folder}


def test_fields_that_there_are_not() -> None:
    assert check_field("exif.iso") == check_field("exif.ISO") == "exif.ISOSpeedRatings"
    assert check_field("IPTC.By-line") == "iptc.Byline"
    with pytest.raises(CaptuneError) as error:
        check_field("directory")
    assert error.value.hint.startswith("Did you mean '{folder}'? There are {stem} {folder}")
    for name in ("exif.Nothing", "iptc.Nothing", "names.first", "Stem"):
        with pytest.raises(CaptuneError, match=r"There is no field"):
            check_field(name)
