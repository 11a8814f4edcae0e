"""A prepared folder as a library: references and splits are changed, go back, and nothing of a person's is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import captune
from captune.cli.verbs.library import app as library_command
from captune.core.errors import CaptuneError
from captune.datasets.prepared import read_prepared, read_split
from captune.library.history import editing, undo
from captune.library.sets.data_set import is_unwritten
from data_sets import draw, known, prepare

IN_SPLITS = {"train": 4, "val": 1, "test": 1}


def lay(photos: Path, texts: dict[int, list[str]] | None = None) -> Path:
    """Six images with two captions each, prepared into `data/` beside them."""
    paths = iter(draw(photos, sum(IN_SPLITS.values())))
    splits = {split: [next(paths) for _ in range(count)] for split, count in IN_SPLITS.items()}
    given = texts or {}
    return prepare(
        photos.parent / "data",
        {
            split: {path: given.get(int(path.stem), [f"a dgo {path.stem}", f"text {path.stem}"]) for path in images}
            for split, images in splits.items()
        },
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return lay(tmp_path / "photos")


def opened(data: Path, **options: Any) -> captune.Library:
    return known(captune.Library(data, create=True, **options), draw(data.parent / "photos", 6))


def captions(library: captune.Library, image: int) -> dict[str, int]:
    """The standing captions of `N.png`, with their numbers."""
    query = "SELECT text, c.id FROM captions c JOIN images i ON i.id = c.image WHERE current AND path LIKE ? ORDER BY 2"
    return {row[0]: row[1] for row in library.database.connection.execute(query, (f"%/{image}.png",))}


def number(library: captune.Library, image: int) -> int:
    query = "SELECT id FROM images WHERE path LIKE ?"
    return int(library.database.connection.execute(query, (f"%/{image}.png",)).fetchone()[0])


def references(data: Path, split: str = "train") -> dict[str, tuple[str, ...]]:
    return {Path(record.image).stem: record.references for record in read_split(data, split)}


def unwritten(library: captune.Library) -> bool:
    return is_unwritten(library.database.connection)


def test_references_and_splits_go_back_and_undone_they_are_what_they_were(data: Path) -> None:
    before = read_prepared(data).digest
    lines = (data / "train_split.jsonl").read_bytes()
    library = opened(data)
    assert not unwritten(library)
    assert not library.write_back().files
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(number(library, 0), "a dog 0", of=captions(library, 0)["a dgo 0"])
        editor.write_caption(number(library, 0), "one more")
        editor.remove_caption(number(library, 1), captions(library, 1)["a dgo 1"])
        editor.set_split(number(library, 2), "val")
        editor.set_split(number(library, 4), "")
        editor.set_mark(number(library, 5), "x")
    assert unwritten(library)
    report = library.write_back(who="ann")
    assert (report.images, report.left_out) == (4, 1)
    assert not unwritten(library)
    assert references(data) == {"0": ("a dog 0", "text 0", "one more"), "1": ("text 1",), "3": ("a dgo 3", "text 3")}
    assert list(references(data, "val")) == ["2"]
    assert "a dog 0" in (data / "train.csv").read_text()
    assert report.digest == read_prepared(data).digest != before
    assert read_prepared(data).summary["edited"]["prepared"] == before
    assert report.former is not None
    assert (Path(report.former) / "train_split.jsonl").read_bytes() == lines
    assert opened(data).status().images == 6  # what was left out can come back
    assert [Path(found.path).stem for found in library.search(split="none")] == ["4"]
    assert len(library.search(split="val")) == 1
    undo(library.database, "ann")
    assert unwritten(library)
    assert library.write_back().digest == before
    assert (data / "train_split.jsonl").read_bytes() == lines
    assert not (data / "left_out.jsonl").exists()


def test_an_image_without_an_approved_caption_is_left_out_and_comes_back(data: Path) -> None:
    library = opened(data)
    with editing(library.database, "ann", "edit") as editor:
        for caption in captions(library, 3).values():
            editor.set_status(caption, "rejected")
    assert library.write_back().left_out == 1
    assert "3" not in references(data)
    library = opened(data)
    undo(library.database, "ann")
    library.write_back()
    assert references(data)["3"] == ("a dgo 3", "text 3")


def test_copies_that_come_into_different_splits_are_listed(data: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "photos" / "1.png")
    lay(tmp_path / "photos")
    library = captune.Library(data, create=True)
    library.add()
    with editing(library.database, "ann", "edit") as editor:
        editor.set_split(number(library, 0), "val")
    app = CliRunner().invoke(library_command, ["write", str(data)])
    assert "1 image changed" in app.output, app.output
    assert (data / "duplicates.csv").read_text().splitlines()[1:] == ["0.png,val,1.png,train,0,exact"]
    assert read_prepared(data).summary["duplicate_pairs"] == 1


def test_prepared_anew_a_person_s_changes_stay_and_the_rest_is_new(data: Path, tmp_path: Path) -> None:
    library = opened(data)
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(number(library, 0), "a dog 0", of=captions(library, 0)["a dgo 0"])
        editor.remove_caption(number(library, 1), captions(library, 1)["text 1"])
        editor.set_split(number(library, 2), "test")
    library.write_back()
    lay(tmp_path / "photos", {0: ["a dgo 0", "new 0"], 1: ["text 1", "new 1"]})
    assert references(data)["0"] == ("a dgo 0", "new 0")
    library = opened(data)
    assert list(captions(library, 0)) == ["a dog 0", "new 0"]
    assert list(captions(library, 1)) == ["new 1"]
    assert unwritten(library)
    library.write_back()
    assert references(data) == {"0": ("a dog 0", "new 0"), "1": ("new 1",), "3": ("a dgo 3", "text 3")}
    assert sorted(references(data, "test")) == ["2", "5"]


def test_a_stop_in_the_middle_of_writing_leaves_a_data_set(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened(data)
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(number(library, 0), "a dog 0", of=captions(library, 0)["a dgo 0"])
    # As SIGKILL leaves it when half of the files are exchanged: a stage with its journal, of a process that is gone.
    stage = data / ".preparing-999999999"
    (stage / ".old").mkdir(parents=True)
    (stage / ".exchange").write_text(
        json.dumps({"old": ["splits.json", "train.csv"], "new": ["splits.json", "train.csv"]})
    )
    shutil.move(data / "splits.json", stage / ".old")
    shutil.move(data / "train.csv", stage / ".old")
    (stage / "splits.json").write_text("{}")
    (data / "train.csv").write_text("half")
    library = opened(data)
    assert library.data_set is not None
    assert "a dgo 0" in (data / "train.csv").read_text()
    assert list(captions(library, 0)) == ["text 0", "a dog 0"]
    library.write_back()
    assert references(data)["0"] == ("a dog 0", "text 0")


def test_images_that_are_away_stop_the_writing(data: Path, tmp_path: Path) -> None:
    library = opened(data)
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(number(library, 0), "a dog 0", of=captions(library, 0)["a dgo 0"])
    (tmp_path / "photos" / "1.png").rename(tmp_path / "away.png")
    before = (data / "splits.json").read_bytes()
    with pytest.raises(CaptuneError, match=r"1\.png") as refused:
        library.write_back()
    assert "not mounted" in refused.value.hint
    assert (data / "splits.json").read_bytes() == before
    (tmp_path / "away.png").rename(tmp_path / "photos" / "1.png")
    assert library.write_back().images == 1


def test_a_folder_from_elsewhere_shows_no_images_outside_of_it(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data, tmp_path / "sent")
    with pytest.raises(CaptuneError, match="outside"):
        opened(copy)
    library = opened(copy, allow_outside=True)
    with editing(library.database, "ann", "edit") as editor:
        editor.set_split(number(library, 0), "val")
    library.write_back()
    with pytest.raises(CaptuneError, match="outside"):  # written here, and trusted no more than before
        opened(copy)


def test_a_data_set_of_questions_is_refused_before_a_library_is_made(data: Path) -> None:
    file = data / "train_split.jsonl"
    lines = [json.loads(line) | {"question": "What is it?"} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CaptuneError, match="questions") as refused:
        captune.Library(data, create=True)
    assert f"captune prepare photos --out {data}" in refused.value.hint
    assert not (data / ".captune").exists()
