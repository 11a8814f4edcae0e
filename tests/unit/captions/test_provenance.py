"""Each row can say who wrote its captions, and keeps saying it through files."""

from __future__ import annotations

import hashlib

import pytest

from captune.captions.provenance import A_PERSONS, Provenance, prompt_digest, provenance_of
from captune.captions.row import CaptionRow, row_of
from captune.core.errors import CaptuneError
from captune.core.records import Caption

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


@pytest.mark.parametrize("value", ["a museum", {"model": "x"}, {"written_by": "Ann"}])
def test_what_is_no_provenance_of_captunes_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match="provenance"):
        provenance_of({"provenance": value})
    with pytest.raises(CaptuneError, match="row 3: a provenance"):
        row_of({"image": "a.jpg", "caption": "x", "provenance": value}, "row 3")


def test_the_digest_of_a_prompt_can_be_checked_by_anybody() -> None:
    assert prompt_digest("Describe it.") == hashlib.sha256(b"Describe it.").hexdigest()[:16]
    assert prompt_digest("Describe it.", None, "") == prompt_digest("Describe it.")
    assert prompt_digest("Describe it.", "Be brief.") != prompt_digest("Describe it.")
    assert prompt_digest("") == ""
