"""A round of learning from what people wrote in a library, and what of it can be concluded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.datasets.prepared import read_split
from captune.library.history import editing
from captune.library.learn import rounds, take_back
from captune.library.learning_data import part_of
from captune.models.blip import Blip

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
OPTIONS: dict[str, Any] = {
    "metrics": ("cider", "ter"), "resamples": 50, "epochs": 2, "learning_rate": 1e-3, "max_new_tokens": 6,
    "eval_every": 2, "validation_images": 4, "draw_report": False, "device": "cpu", "environment": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of 30 images with a caption of a person each; the first two are nearly the same."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(30):
        name, colour = list(COLOURS.items())[number % 3]
        image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((64, 64))
        image.paste(colour, (8 + number % 5, 8, 30, 30))
        image.save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"one {name} square\n")
    Image.open(folder / "00.png").resize((128, 128)).save(folder / "000.png")
    (folder / "000.txt").write_text("one red square again\n")
    captune.Library(folder, create=True).add()
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    Blip.tiny(["one red square", "one green square", "one blue square", "again"]).save(folder)
    return str(folder)


def test_a_round_learns_and_is_tested_on_what_it_did_not_see(photos: Path, model: str) -> None:
    found = captune.learn(photos, model, **OPTIONS)
    own = photos / ".captune" / "rounds" / "1"
    parts = {part: [record.id for record in read_split(own / "data", part)] for part in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 31
    assert (found.number, found.train, found.images) == (1, len(parts["train"]), len(parts["test"]))
    assert found.differences["loss"]["high"] < 0  # better than random weights
    assert found.new["loss"] - found.former["loss"] == pytest.approx(found.differences["loss"]["value"])
    low, high = found.differences["cider"]["low"], found.differences["cider"]["high"]
    assert found.verdict == ("better" if low > 0 else "worse" if high < 0 else "not told apart")
    assert not found.enough
    near = [part for part, names in parts.items() if "00.png" in names or "000.png" in names]
    assert len(near) == 1  # near-duplicates are in one part
    assert rounds(photos)[0]["verdict"] == found.verdict

    library = captune.Library(photos)
    with editing(library.database, "ann", "more") as editor:
        (image,) = [found.image for found in library.search() if found.path == "05.png"]
        editor.write_caption(image, "one blue square, corrected")
    with pytest.raises(UsageError, match="nothing tells which model"):
        captune.learn(photos, model, **{**OPTIONS, "metrics": ("ter",)})
    with pytest.raises(CaptuneError):
        captune.learn(photos, str(photos / "nowhere"), **OPTIONS)
    second = captune.learn(photos, model, **{**OPTIONS, "epochs": 1, "eval_every": 1})
    again = {part: [r.id for r in read_split(own.parent / "2" / "data", part)] for part in parts}
    assert again == parts  # held out for good
    assert second.number == 2
    texts = {record.id: record.references for part in parts for record in read_split(own.parent / "2" / "data", part)}
    assert texts["05.png"] == ("one blue square", "one blue square, corrected")
    drafts_of(library, second.run, image)
    assert take_back(photos) == 1
    assert [each["number"] for each in rounds(photos)] == [1]
    assert not (own.parent / "2").exists()


def drafts_of(library: captune.Library, run: str, image: int) -> None:
    with library.database.write() as connection:
        connection.execute(
            "INSERT INTO captions(image, text, written_by, model, written) VALUES (?, 'a draft', 'model', ?, '')",
            (image, run),
        )


def test_too_little_says_so(tmp_path: Path, photos: Path, model: str) -> None:
    (tmp_path / "few").mkdir()
    shutil.copy(photos / "03.png", tmp_path / "few")
    library = captune.Library(tmp_path / "few", create=True)
    library.add()
    with pytest.raises(CaptuneError, match=r"wrote or approved for 0 images\.\nCorrect or approve"):
        captune.learn(tmp_path / "few", model, **OPTIONS)
    with library.database.write() as connection:
        connection.execute("INSERT INTO captions(image, text, written_by, written) VALUES (1, 'a dog', 'person', '')")
    with pytest.raises(CaptuneError, match=r"for 1 image: none is left for \w+ and (validation|the test)"):
        captune.learn(tmp_path / "few", model, **OPTIONS)
    assert rounds(tmp_path / "few") == []


def test_a_part_is_that_of_the_contents() -> None:
    parts = [part_of(f"{number:032x}") for number in range(2000)]
    assert [round(parts.count(part) / 2000, 1) for part in ("train", "val", "test")] == [0.7, 0.1, 0.2]
