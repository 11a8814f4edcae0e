"""Real photos through the main job: Flickr8k's originals and COCO's own format, a tiny model, every verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import captune

pytestmark = pytest.mark.real

TINY = {"max_steps": 3, "eval_steps": 3, "batch_size": 8, "validation_images": 4, "max_new_tokens": 8, "num_beams": 2,
        "trackers": "none", "vocab_size": 500}  # fmt: skip


@pytest.fixture(scope="module", params=["flickr8k", "coco"])
def run(request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The prepared folder and the run of one data set."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "flickr8k":
        # The captions name all 8,091 images; the folder holds 160 of them at original size.
        captune.prepare(
            test_data / "flickr8k" / "captions.txt",
            folder / "data",
            images=str(test_data / "flickr8k" / "original"),
            split="flickr8k",
            on_bad="skip",
        )
    else:
        captune.prepare(
            test_data / "coco" / "captions_val2017_60.json", folder / "data", images=str(test_data / "coco" / "val2017")
        )
    captune.train(folder / "data", "new:blip-tiny", folder / "run", environment={}, **TINY)
    return folder / "data", folder / "run"


def test_evaluate_measures_real_photos(run: tuple[Path, Path]) -> None:
    data, folder = run
    found = captune.evaluate(str(folder), data, against=f"{folder}@checkpoint-0", environment={})
    written = json.loads((folder / "eval_bleu.json").read_text())
    assert found.scores["perplexity"] < found.reports[f"{folder}@checkpoint-0"].scores["perplexity"]
    assert written["images"] == len(found.records) > 5
    assert written["references"] == 5 * written["images"]


def test_caption_says_something_of_every_photo(run: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = run
    photos = [record["image_path"] for record in map(json.loads, (data / "test_split.jsonl").read_text().splitlines())]
    rows = list(captune.caption([data / photo for photo in photos], model=str(folder), environment={}))
    assert [row.status for row in rows] == ["ok"] * len(photos)
    captioner = captune.Captioner.load(str(folder))
    for row in rows[:3]:
        assert captioner(row.image) == row.captions[0]


def test_odd_files_cost_only_themselves(run: tuple[Path, Path], test_data: Path) -> None:
    _, folder = run
    odd = [path for path in sorted((test_data / "odd").rglob("*")) if path.is_file()]
    rows = list(captune.caption(odd, model=str(folder), environment={}, num_beams=1, max_new_tokens=3))
    assert len(rows) == len(odd)
    failed = [row for row in rows if row.status == "error"]
    assert all(row.error for row in failed)
    assert {Path(row.image).name for row in rows if row.status == "ok"} >= {"hopper.avif", "hopper.psd", "iss634.gif"}
    assert {Path(row.image).name for row in failed} >= {"truncated_jpeg.jpg", "made_zero_byte.png", "github_15.heic"}
