"""Captions behind prompts that differ from image to image: the same in a job and without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

import captune
from captune.captions.prompts.styles import STYLES, only_wording_note, with_style
from captune.captions.row import CaptionRow, row_of
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import PromptOptions
from captune.core.records import Caption
from jobs import rows
from stand_in import StandIn, said, stand_in

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
    asked = len(server.asked)
    for call in (
        lambda: list(captune.caption("photos", **options)),
        lambda: captune.caption_job("photos", "out", **options),
    ):
        with pytest.raises(UsageError, match="--prompt-column text: none of the inputs has columns"):
            call()
    assert len(list(captune.caption(["photos", "t.parquet"], **options))) == asked + len(list(Path("photos").iterdir()))


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


SHORT = "A dog runs along the beach at noon. A child throws a red ball into the sea."
LONG = f"{SHORT} Two old boats lie upside down in the sand behind them, and nobody looks."
ORNAMENT = "Decorative."


def test_a_style_is_a_prompt_with_the_form_of_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, colour in (("a.png", "white"), ("b.png", "black")):
        Image.new("RGB", (16, 16), colour).save(Path("photos") / name)
    with stand_in(lambda asked, number: said(LONG if asked.image.getextrema()[0][1] else ORNAMENT)) as server:
        options = {"model": server.name, "sight_check": False, "concurrency": 1}
        texts = [row.to_json() for row in captune.caption("photos", style="alt-text", workers=1, **options)]
        assert [(row["caption"], row.get("decorative")) for row in texts] == [(SHORT, None), ("", True)]
        assert server.asked[0].prompt.startswith("Write the alternative text of this image")
        assert server.asked[0].prompt.count("names") == 0
        assert server.asked[0].body["max_tokens"] == 60
        captune.caption_job("photos", "out", style="alt-text", workers=1, **options)
        assert [(row["caption"], row.get("decorative"), row["flags"]) for row in rows("out")][1] == ("", True, [])
        before = len(server.asked)
        captune.caption_job("photos", "out", style="alt-text", workers=1, retry_flagged=True, **options)
        assert len(server.asked) == before
        options |= {"style": "alt-text", "prompt": "Hm?", "max_characters": 30, "max_new_tokens": 9}
        given = captune.caption("photos/a.png", **options)
        assert next(given).captions[0].text == "A dog runs along the beach at"
        assert (server.asked[-1].prompt, server.asked[-1].body["max_tokens"]) == ("Hm?", 9)


def test_a_decorative_caption_comes_back_from_a_file() -> None:
    row = CaptionRow("a.jpg", (Caption("", 0.5, decorative=True),), "ok", None, "", (), prompt="Why?")
    assert row_of(row.to_json(), "a file") == row
    corrected = row_of({**row.to_json(), "caption": "A dog."}, "a file")
    assert (corrected.captions[0].text, corrected.captions[0].decorative) == ("A dog.", False)


def test_a_model_that_continues_its_prompt_takes_only_the_form_of_a_style() -> None:
    resolved = resolve("caption", flags={"style": "tags", "max_new_tokens": 7})
    continuing = with_style(resolved, {"max_new_tokens": 20, "num_beams": 2}, answers=False)
    assert (continuing.generation.prompt, continuing.wording.lower_case) == (None, True)
    assert (continuing.generation.max_new_tokens, continuing.generation.num_beams) == (7, 2)
    assert "--style tags: captions of blip continue" in str(only_wording_note(resolved.values, "blip", answers=False))
    answering = with_style(resolved, {"prompt": "saved"}, answers=True)
    assert str(answering.generation.prompt).startswith("List what this image shows as tags")
    assert only_wording_note(resolved.values, "vlm", answers=True) is None
    assert {*get_args(get_args(PromptOptions.model_fields["style"].annotation)[0])} == {*STYLES}
