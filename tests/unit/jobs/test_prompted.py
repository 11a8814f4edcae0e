"""Captions behind prompts that differ from image to image: the same in a job and without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import captune
from captune.core.errors import CaptuneError, UsageError
from jobs import rows
from stand_in import StandIn, stand_in

TAGGED = Path(__file__).parents[1] / "images" / "tagged"
PROMPT = "Describe this photo[ of {names}][ taken in {place}]."
FILLED = {
    "photos/iptc.jpg": "Describe this photo taken in Port, Málaga, Andalusia, Spain.",
    "photos/photo.png": "Describe this photo of Anna Ærø, Ben taken in Seefeld, Zürich, Switzerland.",
    "photos/plain.jpg": "Describe this photo.",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    shutil.copy(TAGGED / "iptc.jpg", "photos")
    shutil.copy(TAGGED / "photo.png", "photos")
    shutil.copy(TAGGED / "beside.jpg", "photos/plain.jpg")
    with stand_in() as server:
        yield server


def test_each_image_has_its_prompt_in_a_job_and_without_one(server: StandIn) -> None:
    options = {"model": server.name, "sight_check": False, "prompt": PROMPT}
    assert {row.image: row.prompt for row in captune.caption("photos", **options)} == FILLED
    assert sorted(asked.prompt for asked in server.asked) == sorted(FILLED.values())
    server.asked.clear()
    captune.caption_job("photos", "out", workers=1, **options)
    assert {row["image"]: row["prompt"] for row in rows("out")} == FILLED
    assert sorted(asked.prompt for asked in server.asked) == sorted(FILLED.values())
    manifest = json.loads(Path("out/_job/manifest.json").read_text())["options"]
    assert (manifest["generation.prompt"], manifest["prompts.prompts"]) == (PROMPT, None)


def test_the_prompts_of_a_file_are_what_a_job_is_of(server: StandIn) -> None:
    Path("p.yaml").write_text("- {prompt: 'Who is in it[, {names}]?', folder: photos}\n- Describe it.\n")
    options = {"model": server.name, "sight_check": False, "workers": 1}
    captune.caption_job("photos", "out", prompts="p.yaml", **options)
    assert [row["prompt"] for row in rows("out")] == ["Who is in it?", "Who is in it, Anna Ærø, Ben?", "Who is in it?"]
    asked = len(server.asked)
    shutil.move("p.yaml", "same.yaml")
    captune.caption_job("photos", "out", prompts="same.yaml", **options)
    assert len(server.asked) == asked
    Path("same.yaml").write_text("- Describe it.\n")
    with pytest.raises(CaptuneError, match=r"--prompts: .*Who is in it"):
        captune.caption_job("photos", "out", prompts="same.yaml", **options)


def test_a_column_of_prompts(server: StandIn) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    prompts = ["What is {this}?", None]
    images = [(TAGGED / name).read_bytes() for name in ("photo.jpg", "iptc.jpg")]
    pq.write_table(pa.table({"image": images, "text": prompts}), "t.parquet")
    options = {"model": server.name, "sight_check": False, "prompt": "In {place}?", "prompt_column": "text"}
    rows = list(captune.caption("t.parquet", **options))
    assert [row.prompt for row in rows] == ["What is {this}?", "In Port, Málaga, Andalusia, Spain?"]
    with pytest.raises(UsageError, match="no column 'txt' for --prompt-column"):
        list(captune.caption("t.parquet", **{**options, "prompt_column": "txt"}))


def test_an_unknown_field_is_refused_before_anything_is_done(server: StandIn) -> None:
    options = {"model": server.name, "prompt": "Who is {nmes}?"}
    with pytest.raises(UsageError, match=r"no field \{nmes\}"):
        list(captune.caption("photos", **options))
    with pytest.raises(UsageError, match=r"no field \{nmes\}"):
        captune.caption_job("photos", "out", **options)
    assert not Path("out").exists()
    assert not server.asked


def test_a_question_is_put_as_it_is(server: StandIn) -> None:
    options = {"model": server.name, "sight_check": False, "prompt": "This is {names}. {question}"}
    captune.ask("photos/photo.png", "what {is} [this {names}]?", **options)
    assert server.asked[0].prompt == "This is Anna Ærø, Ben. what {is} [this {names}]?"
