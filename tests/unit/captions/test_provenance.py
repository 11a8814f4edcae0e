"""Each row can say who wrote its captions, and keeps saying it through files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from captune.captions.provenance import A_PERSONS, Provenance, prompt_digest, provenance_of
from captune.captions.row import CaptionRow, row_of
from captune.captions.writers import open_writer
from captune.captions.writers.writer import row_reader
from captune.core.errors import CaptuneError
from captune.core.files.existing import LEDGER, Mode
from captune.core.records import Caption
from captune.decoding.encoding import TextCodec
from captune.inference.captioning import own_words_of
from captune.inference.endpoint.answers import captions_in

MODEL = Provenance("model", "runs/x", "0f", "ab", "2026-03-01", "1.2", "opus")


def of(*texts: str) -> Provenance:
    return MODEL.of([Caption(text, 0.5) for text in texts], [f"<think>.</think>{text}" for text in texts])


def test_a_row_keeps_its_provenance_in_json() -> None:
    row = CaptionRow("a.jpg", (Caption("a dog", 0.5),), "ok", None, "", (), of("a dog"))
    value = row.to_json()
    assert list(value)[-1] == "provenance"
    assert value["provenance"] == {
        "written_by": "model",
        "model": "runs/x",
        "digest": "0f",
        "prompt": "ab",
        "date": "2026-03-01",
        "captune": "1.2",
        "translator": "opus",
        "captions": list(of("a dog").captions),
        "own_words": ["<think>.</think>a dog"],
    }
    assert row_of(value, "row 1") == row
    assert "provenance" not in CaptionRow("a.jpg", row.captions, "ok", None, "").to_json()


def test_a_model_wrote_what_nobody_changed_but_for_spaces() -> None:
    found = of("a dog", "a  cat")
    assert [found.wrote(text) for text in ("a dog", " a\ncat ", "a cow")] == [True, True, False]
    assert not A_PERSONS.wrote("a dog")
    assert found.for_caption(Caption("a cat", 0.1)).own_words == ("<think>.</think>a  cat",)
    assert found.for_caption(Caption("a cow", 0.1)) == A_PERSONS


def test_captions_of_a_row_that_stand_in_several_are_joined() -> None:
    assert of("a").joined(of("b")) == of("a", "b")
    both = A_PERSONS.joined(of("b"))
    assert (both.written_by, both.wrote("b"), both.wrote("a")) == ("both", True, False)
    assert of("b").joined(A_PERSONS) == both
    assert A_PERSONS.joined(A_PERSONS) == A_PERSONS


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "parquet"])
def test_rows_without_a_ledger_are_refreshed_where_a_model_wrote_them(format: str, tmp_path: Path) -> None:
    """A file that was moved knows its captions by their provenance; what a person wrote or corrected stays."""
    path = tmp_path / f"captions.{format}"

    def write(mode: Mode = "keep", **captions: str) -> list[str]:
        with open_writer(format, path, existing=mode, provenance=True) as writer:
            for name, text in captions.items():
                found = (Caption(text, 0.5),)
                writer.write(CaptionRow(f"{name}.jpg", found, "ok", None, "m", None, MODEL.of(found)))
        (tmp_path / LEDGER).unlink()
        return getattr(writer, "notes", [])

    def read() -> dict[str, CaptionRow]:
        values = row_reader(format)
        assert values is not None
        found: dict[str, CaptionRow] = {}
        for value in values(path):
            row = row_of(value, "x")
            found[row.image] = found[row.image].joined(row) if row.image in found else row
        return found

    assert write(a="first", b="first", c="first") == []
    rows = list(read().values())
    rows[1] = replace(rows[1], captions=(Caption("by hand", 0.5),))
    rows[2] = replace(rows[2], provenance=A_PERSONS)  # a person took the model's words as their own
    with open_writer(format, path, existing="replace", provenance=True) as writer:
        for row in rows:
            writer.write(row)
    (tmp_path / LEDGER).unlink()
    assert len(write(a="second", b="second", c="second")) == 1
    found = read()
    assert [row.captions[0].text for row in found.values()] == ["second", "by hand", "first"]
    assert [row.provenance and row.provenance.written_by for row in found.values()] == ["model", "person", "person"]
    for text in ("third", "fourth"):
        write("append", a=text, b=text, c=text)
    found = read()
    assert [[each.text for each in row.captions] for row in found.values()] == [
        ["fourth"],
        ["by hand", "fourth"],
        ["first", "fourth"],
    ]
    both = found["b.jpg"].provenance
    assert both is not None
    assert (both.written_by, both.model, both.wrote("fourth"), both.wrote("by hand")) == ("both", "runs/x", True, False)


def test_a_row_keeps_the_prompt_that_its_caption_answers(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    row = CaptionRow("a.jpg", (Caption("by hand", 0.5),), "ok", None, "", prompt="What is it?")
    for text in ("by hand", "a dog"):
        with open_writer("jsonl", path) as writer:
            writer.write(replace(row, captions=(Caption(text, 0.5),)))
        (tmp_path / LEDGER).unlink()
    assert row_of(json.loads(path.read_text()), "x") == row


@pytest.mark.parametrize("value", ["a museum", {"model": "x"}, {"written_by": "Ann"}])
def test_what_is_no_provenance_of_captunes_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="provenance"):
        provenance_of({"provenance": value})
    with pytest.raises(CaptuneError, match="row 3: a provenance"):
        row_of({"image": "a.jpg", "caption": "x", "provenance": value}, "row 3")


def test_own_words_are_all_that_a_model_wrote() -> None:
    codec = TextCodec(lambda text: [], lambda tokens: f"words of {len(tokens)} tokens", 0, 0, 100, "")
    choice = {"message": {"content": "<think>A cat? No.</think>\n\nA dog."}}
    (caption,) = captions_in({"choices": [choice]})
    assert caption.text == "A dog."
    assert own_words_of(codec, replace(caption, text="ein Hund", original="A dog.")) == choice["message"]["content"]
    assert own_words_of(codec, Caption("ohwx, a dog", 0.5, (1, 2))) == "words of 2 tokens"
    assert own_words_of(codec, Caption("ein Hund", 0.5, original="a dog")) == "a dog"


def test_the_digest_of_a_prompt_can_be_checked_by_anybody() -> None:
    assert prompt_digest("Describe it.") == hashlib.sha256(b"Describe it.").hexdigest()[:16]
    assert prompt_digest("Describe it.", None, "") == prompt_digest("Describe it.")
    assert prompt_digest("Describe it.", "Be brief.") != prompt_digest("Describe it.")
    assert prompt_digest("") == ""
