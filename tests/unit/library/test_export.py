"""The captions of a library as other trainers read them: prepare finds the same images with the same references."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import captune
from captune.captions.provenance import Provenance
from captune.cli.verbs.library import app
from captune.core.errors import CaptuneError, UsageError
from captune.core.records import Caption
from captune.datasets.formats import find_format, read_source
from captune.datasets.merge import merge_records
from captune.library.database import now
from captune.library.history import editing

REFERENCES = {"1.png": ("a cat, lying", "a kitten"), "day/2.png": ('a "dog"',), "day/3.png": ("two birds",)}


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    (tmp_path / "photos" / "day").mkdir(parents=True)
    opened = captune.Library(tmp_path / "photos", create=True)
    kitten = Provenance("model", "blip", "12ab", date="2026-05-06").of([Caption("a kitten", 0.5)])
    with opened.database.write() as connection:
        for number, path in enumerate((*REFERENCES, "day/4.png")):
            Image.new("RGB", (20, 20), (60 * number, 0, 0)).save(tmp_path / "photos" / path)
            connection.execute(
                "INSERT INTO images(path, digest, bytes, modified, added) VALUES (?, ?, 1, 1, ?)", (path, path, now())
            )
        connection.execute(
            "INSERT INTO captions(image, text, written_by, model, provenance, confidence, flags, status, written) "
            "VALUES (1, 'a kitten', 'model', 'blip', ?, 0.5, 'cut', 'approved', ?)",
            (json.dumps(kitten.to_json()), now()),
        )
        connection.execute(
            "INSERT INTO captions(image, text, written_by, model, written) VALUES (4, 'a draft', 'model', 'blip', ?)",
            (now(),),
        )
        connection.execute("INSERT INTO keywords VALUES (1, 'indoors')")
    with editing(opened.database, "jo", "captions") as editor:
        for number, path in enumerate(REFERENCES, start=1):
            editor.write_caption(number, REFERENCES[path][0])
    return opened


def references(source: Path, images: Path | None, out: Path) -> dict[str, tuple[str, ...]]:
    """What prepare takes from a source: the references of each image of the library."""
    _, records = read_source(source, find_format(source, images)[0], images)
    merged = merge_records(records, out, []).records
    return {record.image: record.references for record in merged}


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("csv", "x.csv"), ("jsonl", "x.jsonl"), ("json", "x.json"), ("parquet", "x.parquet"), ("coco", "coco.json"),
        ("kohya", "meta.json"), ("text", "x.tsv"), ("imagefolder", "photos/metadata.jsonl"),
    ],
)  # fmt: skip
def test_prepare_reads_what_was_exported(format: str, name: str, library: captune.Library, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    out = tmp_path / name if format == "imagefolder" else folder / name
    for _ in range(2):  # captune's own file is replaced
        assert library.export(out, format=format) == 3
    images = None if format == "imagefolder" else library.folder
    expected = {str(library.folder / path): texts for path, texts in REFERENCES.items()}
    assert references(out.parent if format == "imagefolder" else out, images, tmp_path / "images") == expected


def test_prepare_reads_exported_tars(library: captune.Library, tmp_path: Path) -> None:
    assert library.export(tmp_path / "tars", format="tar") == 3
    found = references(tmp_path / "tars", None, tmp_path / "images")
    assert sorted(found.values()) == sorted(REFERENCES.values())
    first = next(Path(path) for path, texts in found.items() if texts[0] == "a cat, lying")
    assert first.read_bytes() == (library.folder / "1.png").read_bytes()


def test_each_caption_says_where_it_comes_from(library: captune.Library, tmp_path: Path) -> None:
    library.export(tmp_path / "x.jsonl", format="jsonl", tag="indoors")
    person, model = (json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines())
    assert person["image"] == model["image"] == "photos/1.png"  # from the file's folder on
    assert person["provenance"] == {"written_by": "person", "date": now()[:10]}
    assert person["fields"] == {"status": "approved", "who": "jo", "keywords": ["indoors"]}
    known = {name: model["provenance"][name] for name in ("written_by", "model", "digest", "date")}
    assert known == {"written_by": "model", "model": "blip", "digest": "12ab", "date": "2026-05-06"}
    assert (model["confidence"], model["flags"], model["fields"]["status"]) == (0.5, ["cut"], "approved")
    library.export(tmp_path / "x.csv", status="draft")
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith("photos/day/4.png,a draft,,ok,,,model,blip,")


def test_a_file_that_somebody_changed_is_not_replaced(library: captune.Library, tmp_path: Path) -> None:
    library.export(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("image,caption\nphotos/1.png,my own\n")
    with pytest.raises(CaptuneError, match="changed since"):
        library.export(tmp_path / "x.csv")
    with pytest.raises(UsageError, match="all of the library"):
        library.export(tmp_path / "x.jsonl", tag="indoors")
    with pytest.raises(UsageError, match="beside or into"):
        library.export(tmp_path / "texts", format="sidecar")
    with pytest.raises(CaptuneError, match="does not lie in"):
        library.export(tmp_path / "other" / "metadata.jsonl")


def test_an_export_of_all_takes_no_other_files_place(library: captune.Library, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "1.png"
    before = photo.read_bytes()
    for name in ("photos/1.png", "notes"):
        with pytest.raises(UsageError, match=r"does not end in \.jsonl"):
            library.export(tmp_path / name)
    for number, content in enumerate((b'{"image": "a.jpg"}\n', b"my notes", before)):
        (tmp_path / f"{number}.jsonl").write_bytes(content)
        with pytest.raises(CaptuneError, match="no export of a library"):
            library.export(tmp_path / f"{number}.jsonl")
        assert (tmp_path / f"{number}.jsonl").read_bytes() == content
    assert photo.read_bytes() == before
    for _ in range(2):
        assert library.export(tmp_path / "library.jsonl") is None


def test_where_no_caption_is_chosen_no_file_is_written(library: captune.Library, tmp_path: Path) -> None:
    assert library.export(tmp_path / "x.csv", tag="nowhere") == 0
    assert not (tmp_path / "x.csv").exists()


def test_a_cut_export_is_not_imported(library: captune.Library, tmp_path: Path) -> None:
    out = tmp_path / "library.jsonl"
    library.export(out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-2]))
    new = captune.Library(library.folder, tmp_path / "new", create=True)
    with pytest.raises(CaptuneError, match=f"was cut: {len(lines) - 3} of its {len(lines) - 1} rows"):
        new.import_from(out)
    out.write_text("".join(['{"captune_library": 4}\n', *lines[1:]]))  # as earlier versions wrote it
    assert new.import_from(out) == library.status().images


def test_a_damaged_letter_is_not_imported(library: captune.Library, tmp_path: Path) -> None:
    out = tmp_path / "library.jsonl"
    library.export(out)
    out.write_bytes(out.read_bytes().replace(b"a draft", b"a dr\xe4ft"))
    new = captune.Library(library.folder, tmp_path / "new", create=True)
    with pytest.raises(CaptuneError, match=r"line [0-9]+: no JSON"):
        new.import_from(out)
    assert new.status().images == 0


def test_what_is_no_export_begins_no_library(library: captune.Library, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("image,caption\n")
    arguments = ["import", str(library.folder), str(tmp_path / "x.csv"), "--library", str(tmp_path / "new")]
    assert "no JSON" in str(CliRunner().invoke(app, arguments).exception)
    assert not (tmp_path / "new").exists()


def test_prepare_takes_what_people_approved_in_a_library(library: captune.Library, tmp_path: Path) -> None:
    expected = {str(library.folder / path): texts for path, texts in REFERENCES.items()}
    (library.folder / "day" / "4.txt").write_text("a draft\n")  # not what lies beside the images
    assert references(library.folder, None, tmp_path / "images") == expected
    (library.folder / ".captune").rename(tmp_path / "own")
    assert references(tmp_path / "own", library.folder, tmp_path / "images") == expected
    elsewhere = captune.Library(library.folder, tmp_path / "own")
    with elsewhere.database.write() as connection:
        connection.executemany("INSERT INTO parts VALUES (?, ?)", [(1, "train"), (2, "val"), (3, "test")])
    _, records = read_source(tmp_path / "own", None, library.folder)
    assert [record.split for record in records] == ["train", "val", "test"]
    with elsewhere.database.write() as connection:
        connection.execute("UPDATE captions SET status = 'draft'")
    (tmp_path / "own").rename(library.folder / ".captune")
    assert find_format(library.folder)[0] == "sidecar"
