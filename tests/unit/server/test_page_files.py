"""What the page takes and gives: names of models, the order of images, files to take away."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from captune.captions.writers import CaptionRow
from captune.core.errors import UsageError
from captune.core.records import Caption
from captune.images.open import open_image
from captune.server.page.captioning import (
    FORMATS,
    Upload,
    accepted_suffixes,
    as_sidecars,
    as_text,
    file_name,
    in_natural_order,
    named_apart,
    samples,
)
from captune.server.startup import parse_models

ROOT = Path(__file__).resolve().parents[3]
ROWS = [
    CaptionRow("a/photo.jpg", (Caption("a <dog>", 0.5), Caption("a cat", 0.25)), "ok", None, 'm "1"'),
    CaptionRow("b/photo.jpg", (Caption("a man", 0.5),), "ok", None, 'm "1"'),
    CaptionRow("bad.jpg", (), "error", "empty", 'm "1"'),
    CaptionRow("a/photo.jpg", (Caption("a dog", 0.5),), "ok", None, "org/n"),
]


def text(name: str) -> str:
    return as_text(ROWS, FORMATS[name][0])


def test_every_text_format_names_the_model() -> None:
    wanted = [
        ("a/photo.jpg", "a <dog>", 'm "1"'),
        ("a/photo.jpg", "a cat", 'm "1"'),
        ("b/photo.jpg", "a man", 'm "1"'),
        ("bad.jpg", "", 'm "1"'),
        ("a/photo.jpg", "a dog", "org/n"),
    ]
    assert [(row["image"], row["caption"], row["model"]) for row in csv.DictReader(io.StringIO(text("CSV")))] == wanted
    assert [(row["image"], row["caption"] or "", row["model"]) for row in json.loads(text("JSON"))] == [
        wanted[row] for row in (0, 2, 3, 4)
    ]
    assert [
        (one.findtext("image"), caption.text if caption is not None else "", one.get("model"))
        for one in ElementTree.fromstring(text("XML"))
        for caption in one.findall("caption") or [None]
    ] == wanted


def test_text_files_lie_in_a_folder_for_each_model() -> None:
    with zipfile.ZipFile(io.BytesIO(as_sidecars(ROWS))) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "m_1/photo.txt": "a <dog>\na cat\n",
            "m_1/photo (2).txt": "a man\n",
            "org_n/photo.txt": "a dog\n",
        }


@pytest.mark.parametrize(
    ("models", "name"),
    [
        (["base"], "captions-base.csv"),
        (["base", "org/tuned model"], "captions-base-org_tuned_model.csv"),
        (["../../x"], "captions-x.csv"),
        (["größe"], "captions-größe.csv"),
    ],
)
def test_file_names_name_the_models(models: list[str], name: str) -> None:
    assert file_name(models, "csv") == name


def test_images_come_in_the_order_in_which_people_count() -> None:
    names = ["trip/photo 10.jpg", "trip/Photo 2.jpg", "trip/photo 1.jpg", "2.jpg", "10.jpg", "a.jpg", "²³.jpg"]
    assert [upload.name for upload in in_natural_order([Upload(name, b"") for name in names])] == [
        "2.jpg", "10.jpg", "a.jpg", "trip/photo 1.jpg", "trip/Photo 2.jpg", "trip/photo 10.jpg", "²³.jpg",
    ]  # fmt: skip


def test_models_have_names() -> None:
    assert parse_models(["runs/x", "mine=runs/y", "org/name"], short=True) == {
        "x": "runs/x",
        "mine": "runs/y",
        "name": "org/name",
    }
    with pytest.raises(UsageError, match="Two models are called x"):
        parse_models(["runs/x", "others/x"], short=True)
    with pytest.raises(UsageError, match="missing"):
        parse_models(["=runs/x"], short=True)


def test_images_with_one_name_are_told_apart() -> None:
    names = ["a/photo.jpg", "photo.jpg", "photo.jpg", "photo (2).jpg", "photo.jpg"]
    assert [upload.name for upload in named_apart([Upload(name, b"") for name in names])] == [
        "a/photo.jpg", "photo.jpg", "photo (2).jpg", "photo (2) (2).jpg", "photo (3).jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", accepted_suffixes())
def test_the_page_offers_what_it_reads(ending: str, tmp_path: Path) -> None:
    file, image = tmp_path / f"image.{ending}", Image.new("RGB", (64, 48), "red")
    if ending in ("heic", "heif", "hif"):
        pytest.importorskip("pillow_heif").from_pillow(image).save(file)
    else:
        image.save(file)
    assert open_image(file.read_bytes()).size == (64, 48)


def test_samples_are_drawn_and_described() -> None:
    drawings = {path.stem: ElementTree.parse(path) for path in (ROOT / "tools" / "samples").glob("*.svg")}
    assert {name.lower(): words for name, (_, words) in samples().items()} == {
        name: drawing.findtext("{http://www.w3.org/2000/svg}title") for name, drawing in drawings.items()
    }
    assert {open_image(data).size for data, _ in samples().values()} == {(640, 480)}
