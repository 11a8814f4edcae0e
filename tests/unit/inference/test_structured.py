"""Captions that fit a JSON Schema: what a model is told, what is tried again, and what becomes of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import captune
from captune.captions.structure import Structure
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import MOST_NEW_TOKENS, GenerationOptions
from captune.core.records import Caption
from captune.inference.captioner import Captioner
from captune.inference.structured import StructuredModel, structured
from serving import save_tiny
from stand_in import Asked, Reply, said, stand_in

SCHEMA = {
    "type": "object",
    "properties": {"caption": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["caption", "tags"],
    "additionalProperties": False,
}
INLINE = json.dumps(SCHEMA)
GOOD = {"caption": "a dog", "tags": ["dog", "sea"]}
QUICK: dict[str, Any] = {"sight_check": False, "retries": 1, "schema": INLINE}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captune.inference.endpoint.client._FIRST_PAUSE", 0.01)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 30), (number * 40, 90, 20)).save(folder / f"{number}.png")
    return folder


def which(asked: Asked) -> int:
    """The number of the photo that was sent."""
    return round(asked.image.convert("RGB").getpixel((5, 5))[0] / 40)  # type: ignore[index]


def caption(photo: Path, name: str, **options: Any) -> Any:
    (row,) = captune.caption(photo, model=name, **{**QUICK, **options})
    return row


def test_a_server_gets_the_schema_and_rows_get_the_fields(photos: Path) -> None:
    with stand_in(lambda asked, number: said("```json\n" + json.dumps(GOOD) + "\n```")) as server:
        row = caption(photos / "0.png", server.name, prompt="What is it?", prefix="trigger,")
        body, prompt = server.asked[0].body, server.asked[0].prompt
    assert row.to_json()["fields"] == GOOD
    assert row.captions[0].text == "trigger, a dog"
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "caption", "schema": SCHEMA}}
    assert body["max_tokens"] == MOST_NEW_TOKENS, "an object is longer than a sentence"
    assert prompt == Structure.read(INLINE).prompt("What is it?")


def test_the_sight_check_is_a_plain_question(photos: Path) -> None:
    def script(asked: Asked, number: int) -> Reply:
        return said(json.dumps(GOOD)) if "response_format" in asked.body else said(colours[which_colour(asked)])

    colours = {(215, 25): "red", (30, 150): "green", (25, 60): "blue", (250, 220): "yellow"}

    def which_colour(asked: Asked) -> tuple[int, int]:
        red, green, _ = asked.image.getpixel((9, 9))  # type: ignore[misc]
        return min(colours, key=lambda colour: abs(colour[0] - red) + abs(colour[1] - green))

    with stand_in(script) as server:
        assert caption(photos / "0.png", server.name, sight_check=True).captions[0].fields == GOOD
        assert ["response_format" in asked.body for asked in server.asked] == [False] * 4 + [True]


@pytest.mark.parametrize(
    "message", ["Unknown field: response_format", "json_schema is not supported", "failed to parse grammar"]
)
def test_a_server_that_refuses_schemas_is_told_in_words_alone(message: str, photos: Path) -> None:
    def script(asked: Asked, number: int) -> Reply:
        refused = "response_format" in asked.body
        return Reply({"error": {"message": message}}, 400) if refused else said(json.dumps(GOOD))

    with stand_in(script) as server:
        rows = list(captune.caption(photos, model=server.name, **QUICK, concurrency=1))
    assert [row.captions[0].fields for row in rows] == [GOOD] * 6
    assert len(server.asked) == 7, "it is asked once for what it cannot do"


def test_an_answer_that_does_not_fit_is_tried_again(photos: Path) -> None:
    answers = ["a dog", '{"caption": "a dog"}', json.dumps(GOOD)]
    with stand_in(lambda asked, number: said(answers[number])) as server:
        assert caption(photos / "0.png", server.name).captions[0].fields == GOOD
        bodies = [asked.body for asked in server.asked]
        prompts = [asked.prompt for asked in server.asked]
    assert [(body["temperature"], body.get("seed")) for body in bodies] == [(0, None), (0.7, 1), (0.7, 2)]
    assert "refused" not in prompts[0]
    assert prompts[1].endswith("An earlier answer was refused: it has no JSON object.")
    assert prompts[2].endswith("An earlier answer was refused: 'tags' is a required property.")


@pytest.mark.parametrize(
    ("reply", "options", "sent", "reason"),
    [
        (said("a dog"), {}, 3, "the answer does not fit the schema after 3 attempts: it has no JSON object"),
        (said('{"caption": 3, "tags": []}'), {"schema_retries": 0}, 1, "schema: caption: 3 is not of type 'string'"),
        (said('{"caption": "a d', "length"), {"schema_retries": 1}, 2, "2 attempts: it was cut at --max-new-tokens"),
        (said("", refusal="no"), {}, 1, "the model refuses"),
    ],
)
def test_what_never_fits_is_the_images_error(
    reply: Reply, options: dict[str, Any], sent: int, reason: str, photos: Path
) -> None:
    with stand_in(lambda asked, number: reply) as server:
        row = caption(photos / "0.png", server.name, **options)
    assert (row.status, row.captions, len(server.asked)) == ("error", (), sent)
    assert reason in row.error


def test_a_job_pays_for_nothing_twice_and_knows_its_schema(photos: Path, tmp_path: Path) -> None:
    """A stop between two attempts: those that were made stand, the others are made by the same command."""

    def script(asked: Asked, number: int) -> Reply:
        if which(asked) == 5:
            return said("never")
        again = "refused" in asked.prompt
        return said(json.dumps({**GOOD, "caption": f"a dog {which(asked)}"}) if again or which(asked) % 2 else "x")

    schema, out = tmp_path / "schema.json", tmp_path / "captions"
    schema.write_text(json.dumps(SCHEMA, indent=2))
    with stand_in(script) as server:
        given: dict[str, Any] = {**QUICK, "model": server.name, "format": "csv", "concurrency": 1, "schema": schema}
        with pytest.raises(CaptuneError, match="The budget is spent"):
            captune.caption_job(photos, out, **given, max_requests=4)
        schema.write_text(INLINE)  # the same schema
        report = captune.caption_job(photos, out, **given)
        assert len(server.asked) == 3 * 2 + 2 * 1 + 1 * 3, "photos 0, 2, 4; 1, 3; 5"
    assert (report.done, report.failed) == (6, 1)
    head, *lines = (out / "captions-00000.csv").read_text().splitlines()
    assert head.endswith(",fields.caption,fields.tags")
    assert [line.split(",")[1] for line in lines] == [*(f"a dog {number}" for number in range(5)), ""]
    assert lines[0].endswith(',a dog 0,"[""dog"", ""sea""]"')
    manifest = json.loads((out / "_job" / "manifest.json").read_text())["options"]
    assert manifest["structure.schema"] == Structure.read(INLINE).digest
    assert manifest["generation.max_new_tokens"] == MOST_NEW_TOKENS
    schema.write_text(json.dumps({**SCHEMA, "required": ["caption"]}))
    with pytest.raises(CaptuneError, match=r"--schema: .*, now "):
        captune.caption_job(photos, out, **given)


class Model:
    """A `CaptioningModel` that gives its answers in turn; `calls` has the prompts, seeds and images of each call."""

    def __init__(self, answer: Callable[[int, int], str]) -> None:
        self.answer, self.prompt, self.generation = answer, "Describe it.", {}
        self.codec = SimpleNamespace(answers=True)
        self.calls: list[tuple[list[str], int | None, list[int]]] = []

    def generate(self, inputs: Any, options: GenerationOptions, *, prompts: Any, on_token: Any = None) -> Any:
        numbers = [int(image[0, 0, 0]) for image in inputs]
        self.calls.append((list(prompts), options.sample_seed, numbers))
        return [[Caption(self.answer(number, len(self.calls)), 0.5)] for number in numbers]


def test_a_model_here_tries_only_the_failed_images_again() -> None:
    model = Model(lambda number, call: json.dumps(GOOD) if number == 0 or call == number + 1 else "nothing")
    inputs = np.stack([np.full((3, 2, 2), number, np.uint8) for number in (0, 1, 2, 7)])
    found = structured(model, "m", Structure.read(INLINE), 2).generate(inputs, GenerationOptions(num_beams=3))
    assert [numbers for _, _, numbers in model.calls] == [[0, 1, 2, 7], [1, 2, 7], [2, 7]]
    assert [seed for _, seed, _ in model.calls] == [None, 1, 2]
    assert all(prompt.startswith("Describe it.\n\nAnswer with one JSON object") for prompt in model.calls[0][0])
    *good, bad = found
    assert [each[0].fields for each in good] == [GOOD] * 3  # type: ignore[index]
    assert [each[0].text for each in good] == ["a dog"] * 3  # type: ignore[index]
    assert "after 3 attempts: it has no JSON object" in str(bad)


def test_what_a_schema_does_not_go_with(photos: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"num_captions": 2, "sample": True}, "one caption"),
        ({"variations": 2}, "one caption"),
        ({"language": "de"}, "not translated"),
        ({"explain": tmp_path / "maps"}, "no attention maps"),
    ):
        with stand_in() as server, pytest.raises(UsageError, match=message):
            list(captune.caption(photos, model=server.name, **QUICK, **options))
    blip = save_tiny(tmp_path / "blip")
    with pytest.raises(UsageError, match="continues its prompt"):
        Captioner.load(blip, schema=INLINE)
    with pytest.raises(UsageError, match="continues its prompt"):
        captune.caption_job(photos, tmp_path / "out", model=blip, schema=INLINE)
    assert not (tmp_path / "out").exists()


def test_a_vision_language_model_without_training_fits_nothing(photos: Path, tmp_path: Path) -> None:
    from tiny_vlms import lively

    lively("qwen2_5_vl").save(tmp_path / "vlm")
    options: dict[str, Any] = {"schema": INLINE, "schema_retries": 1, "max_new_tokens": 8}
    captioner = Captioner.load(tmp_path / "vlm", **options)
    assert isinstance(captioner.model, StructuredModel)
    (found,) = (found for _, found in captioner.stream([(0, photos / "0.png")]))
    assert "does not fit the schema after 2 attempts" in str(found)
