"""Image folders, Parquet, images in archives, saved and streamed data sets, prepared folders."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captune.core.errors import CaptuneError
from captune.core.records import ImageRecord
from captune.datasets.formats import FORMATS, read_source
from captune.datasets.merge import EmbeddedImage, Problem
from captune.datasets.prepared import write_splits
from captune.evaluation.pairing import read_results
from sources import jpeg, records, tar, write


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_image_folder_with_splits(tmp_path: Path, table: str) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        write(tmp_path / split / "1.jpg", jpeg(number))
        row = json.dumps({"file_name": "1.jpg", "text": f"In {split}, here"})
        text = f'file_name,text\n1.jpg,"In {split}, here"\n' if table.endswith("csv") else row + "\n"
        write(tmp_path / split / table, text)
    name, found, contents, problems = records(tmp_path)
    assert (name, problems) == ("imagefolder", [])
    assert {record.id: (record.split, record.references) for record in found} == {
        "train/1.jpg": ("train", ("In train, here",)),
        "validation/1.jpg": ("val", ("In validation, here",)),
        "test/1.jpg": ("test", ("In test, here",)),
    }
    assert {contents[n] for n in range(3)} == {jpeg(0), jpeg(1), jpeg(2)}


def test_image_folder_with_one_table(tmp_path: Path) -> None:
    write(tmp_path / "train" / "1.jpg", jpeg(1))
    write(tmp_path / "2.jpg", jpeg(2))
    rows = [{"file_name": "train/1.jpg", "caption": "One"}, {"file_name": "2.jpg", "caption": ["Two", "Deux"]}]
    rows.append({"file_name": "train/1.jpg", "caption": "Uno"})
    write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    name, found, _, problems = records(tmp_path)
    assert (name, problems) == ("imagefolder", [])
    assert [(record.id, record.split, record.references) for record in found] == [
        ("train/1.jpg", "train", ("One", "Uno")),
        ("2.jpg", None, ("Two", "Deux")),
    ]


def test_parquet_with_bytes_groups_equal_images(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": jpeg(1), "path": "image.jpg"}, "caption": "A dog, a cat"},
        {"image": {"bytes": jpeg(1), "path": "image.jpg"}, "caption": "Again"},
        {"image": {"bytes": jpeg(2), "path": "image.jpg"}, "caption": "A bird"},
        {"image": {"bytes": None, "path": None}, "caption": "nothing"},
        {"image": {"bytes": jpeg(3, "PNG"), "path": None}, "caption": "A fish"},
        {"image": {"bytes": jpeg(4), "path": None}, "caption": " "},
        {"image": {"bytes": jpeg(1), "path": "image.jpg"}, "caption": "Later"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
    name, found, contents, problems = records(tmp_path)
    assert name == "parquet"
    assert [record.references for record in found] == [("A dog, a cat", "Again"), ("A bird",), ("A fish",), ("Later",)]
    # The last row is the first image again: only who keeps the images can join the two.
    assert contents == [jpeg(1), jpeg(2), jpeg(3, "PNG"), jpeg(1)]
    assert {record.split for record in found} == {"train"}
    names = [record.image.name for record in found if isinstance(record.image, EmbeddedImage)]
    assert len(set(names)) == 4
    assert names[0] == "image.jpg"
    assert names[2].endswith(".png")
    assert [problem.where.split(", ")[1] for problem in problems] == ["row 4", "row 6"]


def test_parquet_of_the_hub_with_lists_and_file_names(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("test", 2)):
        row = {
            "image": {"bytes": jpeg(number), "path": None},
            "caption": ["One.", "Two, three."],
            "split": split,
            "img_id": number,
            "filename": f"{number}.jpg",
        }
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data" / f"part-{number}.parquet")
    name, found, contents, problems = records(tmp_path)
    assert (name, problems, contents) == ("parquet", [], [jpeg(1), jpeg(2)])
    assert [(r.id, r.split, r.references, r.image.name) for r in found] == [  # type: ignore[union-attr]
        ("1", "train", ("One.", "Two, three."), "1.jpg"),
        ("2", "test", ("One.", "Two, three."), "2.jpg"),
    ]
    assert len(records(tmp_path / "data" / "part-*.parquet")[1]) == 2


def test_parquet_with_paths_and_numbered_captions(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.jpg", jpeg(1))
    rows = [{"image_path": "a.jpg", "caption_0": "One", "caption_1": "Two"}, {"image_path": "a.jpg", "caption_0": "3"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    name, found, contents, problems = records(tmp_path / "data.parquet")
    assert (name, problems, contents) == ("parquet", [], [jpeg(1)])
    assert found[0].references == ("One", "Two", "3")


def test_parquet_that_is_broken(tmp_path: Path) -> None:
    write(tmp_path / "data.parquet", b"PAR1 no")
    with pytest.raises(CaptuneError, match="not a whole Parquet file"):
        records(tmp_path / "data.parquet")
    pq.write_table(pa.Table.from_pylist([{"image": "a.jpg", "label": 3}]), tmp_path / "data.parquet")
    with pytest.raises(CaptuneError, match="found image, label"):
        records(tmp_path / "data.parquet")


@pytest.mark.parametrize("column", ["url", "URL", "image_url"])
def test_a_table_of_addresses_says_what_to_do(tmp_path: Path, column: str) -> None:
    pq.write_table(pa.table({column: ["http://127.0.0.1:9/1.jpg"], "caption": ["a"]}), tmp_path / "part-0.parquet")
    for source in (tmp_path, tmp_path / "part-0.parquet"):
        with pytest.raises(CaptuneError, match="by address") as caught:
            records(source)
        assert "img2dataset" in caught.value.hint


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_images_in_an_archive(tmp_path: Path, kind: str) -> None:
    images = {"Images/a.jpg": jpeg(1), "Images/b.jpg": jpeg(2)}
    if kind == "tar":
        tar(tmp_path / "images.tar", images)
    else:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for name, data in images.items():
                archive.writestr(name, data)
    write(tmp_path / "captions.txt", "image,caption\nb.jpg,B\na.jpg,A\ngone.jpg,C\n")
    problems: list[Problem] = []
    name, found = read_source(tmp_path / "captions.txt", None, tmp_path / f"images.{kind}", problems)
    images = [(record.references, record.image) for record in found]
    assert name == "kaggle"
    assert [(text, image.read()) for text, image in images[:2] if isinstance(image, EmbeddedImage)] == [
        (("B",), jpeg(2)),
        (("A",), jpeg(1)),
    ]
    assert [image.key for _, image in images[:2] if isinstance(image, EmbeddedImage)] == [
        "Images/b.jpg",
        "Images/a.jpg",
    ]
    assert [problem.where for problem in problems] == ["captions.txt, line 4"]
    write(tmp_path / "broken.zip", b"PK no")
    with pytest.raises(CaptuneError, match="cannot be opened as an archive"):
        list(read_source(tmp_path, images=tmp_path / "broken.zip")[1])


def saved(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    made = {
        name: datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()) for name, rows in splits.items()
    }
    datasets.DatasetDict(made).save_to_disk(str(folder))


def test_saved_data_set_with_a_corrupt_image(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": jpeg(1), "path": None}, "caption": "A dog"},
        {"image": {"bytes": b"not an image", "path": None}, "caption": "Broken"},
        {"image": {"bytes": jpeg(1), "path": None}, "caption": "Again"},
    ]
    saved(
        tmp_path / "set", {"train": rows, "validation": [{"image": {"bytes": jpeg(2), "path": None}, "caption": "B"}]}
    )
    name, found, contents, problems = records(tmp_path / "set")
    assert (name, problems) == ("datasets", [])
    assert [(record.split, record.references) for record in found] == [
        ("train", ("A dog",)),
        ("train", ("Broken",)),
        ("train", ("Again",)),
        ("val", ("B",)),
    ]
    assert contents == [jpeg(1), b"not an image", jpeg(1), jpeg(2)]
    name, found, _, _ = records(tmp_path / "set" / "train")
    assert (name, len(found)) == ("datasets", 3)


def test_streamed_data_set(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [
        {"image": {"bytes": jpeg(1), "path": "1.jpg"}, "caption": "A dog"},
        {"image": {"bytes": jpeg(1), "path": "1.jpg"}, "caption": "Again"},
        {"image": {"bytes": jpeg(2), "path": "2.jpg"}, "caption": "B"},
        {"image": {"bytes": jpeg(1), "path": "1.jpg"}, "caption": "Later"},
    ]
    (tmp_path / "repo").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "repo" / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[2:3]), tmp_path / "repo" / "test.parquet")
    name, found, contents, problems = records(f"hf:{tmp_path / 'repo'}:train")
    assert name == "datasets"
    assert [(r.where, r.split, r.references) for r in found] == [
        ("train, row 1", "train", ("A dog", "Again")),
        ("train, row 3", "train", ("B",)),
        ("train, row 4", "train", ("Later",)),
    ]
    assert (contents, problems) == ([jpeg(1), jpeg(2), jpeg(1)], [])
    with pytest.raises(CaptuneError, match="has no split 'val'"):
        records(f"hf:{tmp_path / 'repo'}:val")


def test_hub_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(CaptuneError, match=r"huggingface\.co") as caught:
        records("hf:somebody/something")
    assert caught.value.hint


def test_prepared_folder(tmp_path: Path) -> None:
    write(tmp_path / "splits.json", "{}")
    for number, split in enumerate(("train", "val", "test")):
        write(tmp_path / "images" / f"{split}.jpg", jpeg(number))
        row = {"id": f"id-{number}", "image_path": f"images/{split}.jpg", "references": ["One", "Two"]}
        write(tmp_path / f"{split}_split.jsonl", json.dumps(row) + "\n")
        write(tmp_path / f"{split}_split.csv", f"image_path,caption\nimages/{split}.jpg,One\n")
    name, found, _, problems = records(tmp_path)
    assert (name, problems) == ("captune", [])
    assert sorted((r.id, r.split, r.references) for r in found) == [
        ("id-0", "train", ("One", "Two")),
        ("id-1", "val", ("One", "Two")),
        ("id-2", "test", ("One", "Two")),
    ]


@pytest.mark.parametrize("question", ["", "what is it?"])
def test_prepared_references_are_read_as_they_are(tmp_path: Path, question: str) -> None:
    words = ("dog", "puppy", "animal", "pet", "3")
    record = ImageRecord("7", str(tmp_path / "a.jpg"), words, "val", question)
    write(tmp_path / "a.jpg", jpeg(1))
    write_splits(tmp_path, {"train": [], "val": [record]}, {}, {})
    for source, split in ((tmp_path, "val"), (tmp_path / "val_split.jsonl", None)):
        _, found, _, problems = records(source)
        assert [(r.id, r.references, r.question, r.split) for r in found] == [("7", words, question, split)]
        assert problems == []
    (texts,) = read_results(str(tmp_path), "references").texts.values()
    assert texts == list(words)
    with pytest.raises(CaptuneError, match="holds references, not the captions"):
        read_results(str(tmp_path), "captions")
    write(tmp_path / "val_split.jsonl", '{"id": 1, "image_path": "a.jpg", "references": "dog"}\n')
    (problem,) = read_results(str(tmp_path), "references").problems
    assert str(problem.where) == "val_split.jsonl, line 1"
    assert problem.reason == "expected an object with id, image_path and references"


def test_every_format_describes_itself() -> None:
    for name, module in FORMATS.items():
        assert module.DESCRIPTION, name
        assert "\n" not in module.DESCRIPTION
        assert callable(module.sniff)
        assert callable(getattr(module, "read", None) or module.rows)


def test_equal_images_that_the_captions_name_apart_stay_apart(tmp_path: Path) -> None:
    from captune.datasets.merge import merge_records

    tar(tmp_path / "images.tar", {f"{folder}/1.jpg": jpeg(1) for folder in "abcd"})
    rows = "".join(f"{folder}/1.jpg,In {folder}\n" for folder in "abcd")
    write(tmp_path / "captions.txt", f"image,caption\n{rows}")
    _, found = read_source(tmp_path / "captions.txt", images=tmp_path / "images.tar")
    gathered = merge_records(found, tmp_path / "out", [])
    assert [record.references for record in gathered.records] == [(f"In {folder}",) for folder in "abcd"]
    assert all(Path(record.image).read_bytes() == jpeg(1) for record in gathered.records)
