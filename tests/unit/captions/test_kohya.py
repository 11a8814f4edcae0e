"""The metadata file of kohya's sd-scripts: captions are put into it, and read from it; all else in it stays."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from captune.captions.row import CaptionRow
from captune.captions.writers import check_existing, open_writer
from captune.core.errors import CaptuneError
from captune.core.files.existing import LEDGER, Mode
from captune.core.records import Caption
from sources import jpeg, records, write


def caption(out: str, existing: Mode = "keep", **texts: str) -> list[str]:
    """Write captions of images; a text of several has a | between them."""
    with open_writer("kohya", out, existing=existing) as writer:
        for image, text in texts.items():
            found = tuple(Caption(one, 0.5) for one in text.split("|"))
            writer.write(CaptionRow(image, found, "ok", None, "m"))
        writer.write(CaptionRow("photos/broken.jpg", (), "error", "damaged", "m"))
    return list(getattr(writer, "notes", []))


def entries(out: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(Path(out).read_text("utf-8"))
    return found


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_captions_go_into_a_file_that_has_tags_and_latents() -> None:
    standing = {
        "a": {"tags": "dog, grass", "train_resolution": [512, 448], "x": [1]},
        "b": {"caption": "by hand", "tags": "cat"},
        "c": {"caption": ""},
    }
    Path("meta_lat.json").write_text(json.dumps(standing))
    photos = {"photos/a.jpg": "a dog", "photos/b.png": "a cat", "photos/d.e.jpg": "Größe\n\nzwei"}
    assert len(caption("meta_lat.json", **photos)) == 1
    assert entries("meta_lat.json") == {
        "a": {**standing["a"], "caption": "a dog"},
        "b": standing["b"],
        "c": standing["c"],
        "d.e": {"caption": "Größe\n\nzwei"},
    }
    found = entries("meta_lat.json")
    found["d.e"]["caption"] = "corrected"
    Path("meta_lat.json").write_text(json.dumps(found))
    assert len(caption("meta_lat.json", **dict.fromkeys(photos, "second"))) == 1  # captune's own is refreshed
    assert [each.get("caption") for each in entries("meta_lat.json").values()] == ["second", "by hand", "", "corrected"]
    for text in ("third", "fourth"):
        caption("meta_lat.json", "append", **dict.fromkeys(photos, text))
    assert [each.get("caption") for each in entries("meta_lat.json").values()] == [
        "fourth",
        "by hand\nfourth",
        "",
        "corrected\nfourth",
    ]
    assert caption("meta_lat.json", "replace", **dict.fromkeys(photos, "fifth|sixth")) == []
    assert entries("meta_lat.json")["b"] == {"caption": "fifth\nsixth", "tags": "cat"}


def test_names_are_those_of_the_file_else_stems_else_paths() -> None:
    caption("stems.json", **{"photos/a.jpg": "x", "photos/b.jpg": "y"})
    assert list(entries("stems.json")) == ["a", "b"]
    for images in (["one/a.jpg", "two/b.jpg"], ["one/a.jpg", "one/a.png"]):
        Path("paths.json").unlink(missing_ok=True)
        caption("paths.json", **dict.fromkeys(images, "x"))
        assert list(entries("paths.json")) == [str(Path.cwd() / image) for image in images]
    Path("full.json").write_text(json.dumps({str(Path.cwd() / "photos/a.jpg"): {"tags": "x"}, "photos/b.jpg": {}}))
    caption("full.json", **{"photos/a.jpg": "a", "photos/b.jpg": "b", "photos/c.jpg": "c"})
    assert {Path(name).name: entry["caption"] for name, entry in entries("full.json").items()} == {
        "a.jpg": "a",
        "b.jpg": "b",
        "c.jpg": "c",
    }
    assert list(entries("full.json"))[2] == str(Path.cwd() / "photos/c.jpg")


def test_a_name_that_is_no_text_is_written() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    caption("meta.json", **{f"photos/{name}.jpg": "x"})
    assert list(entries("meta.json")) == [name]


@pytest.mark.parametrize(
    "text", ['[{"image": "a.jpg", "caption": "x"}]', '{"a": "x"}', '{"a": {"caption": ["x"]}}', "{"]
)
def test_another_file_is_not_overwritten(text: str) -> None:
    Path("meta.json").write_text(text)
    with pytest.raises(CaptuneError, match=r"meta\.json is no metadata file of kohya's") as refused:
        check_existing("kohya", "meta.json")  # before anything is captioned
    assert "--existing replace" in refused.value.hint
    caption("meta.json", "replace", **{"photos/a.jpg": "a dog"})
    assert entries("meta.json") == {"a": {"caption": "a dog"}}


def test_after_an_error_the_file_is_as_it_was() -> None:
    caption("meta.json", **{"photos/a.jpg": "a dog"})
    before = Path("meta.json").read_bytes(), Path(LEDGER).read_bytes()
    with suppress(ConnectionError), open_writer("kohya", "meta.json") as writer:
        writer.write(CaptionRow("photos/a.jpg", (Caption("a cat", 0.5),), "ok", None, "m"))
        raise ConnectionError
    assert (Path("meta.json").read_bytes(), Path(LEDGER).read_bytes()) == before


def test_prepare_reads_what_captune_and_kohya_write(tmp_path: Path) -> None:
    for name in ("photos/a.jpg", "photos/b.c.png", "photos/d.jpg", "photos/e.jpg"):
        write(tmp_path / name, jpeg(1))
    caption("photos/meta_cap.json", **{"photos/a.jpg": "one|two", "photos/b.c.png": "A dog.\n\nIt runs."})
    found = entries("photos/meta_cap.json")
    found |= {"d": {"tags": "dog, grass"}, str(tmp_path / "photos/e.jpg"): {"caption": "by path", "tags": "x"}}
    Path("photos/meta_cap.json").write_text(json.dumps(found))
    name, read, _, problems = records(tmp_path / "photos")
    assert name == "kohya"
    assert {Path(str(record.image)).name: record.references for record in read} == {
        "a.jpg": ("one", "two"),
        "b.c.png": ("A dog. It runs.",),
        "e.jpg": ("by path",),
    }
    assert [(problem.where, problem.reason) for problem in problems] == [
        ("meta_cap.json, entry 3", "d has tags and no caption")
    ]


def test_a_file_of_tags_alone_leaves_the_captions_to_others(tmp_path: Path) -> None:
    write(tmp_path / "photos/a.jpg", jpeg(1))
    write(tmp_path / "photos/a.txt", "a dog")
    write(tmp_path / "photos/meta_lat.json", json.dumps({"a": {"tags": "x", "train_resolution": [512, 512]}}))
    name, read, _, _ = records(tmp_path / "photos")
    assert (name, [record.references for record in read]) == ("sidecar", [("a dog",)])
    with pytest.raises(CaptuneError, match="a has tags and no caption"):
        records(tmp_path / "photos/meta_lat.json")
