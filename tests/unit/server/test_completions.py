"""Conversations about an image, and where a caption stops."""

from __future__ import annotations

import json

import pytest

from captune.decoding.encoding import Turn
from captune.inference.pieces import Piece
from captune.server.completions import ChatTurn, conversation_of
from captune.server.ollama_schemas import OllamaOptions
from captune.server.problems import Problem
from captune.server.stops import StopFilter

PHOTO = "YWJj"


def test_a_conversation_begins_at_the_last_message_with_an_image() -> None:
    found = conversation_of([
        ChatTurn("system", "Be short."),
        ChatTurn("user", "what?", ["old"]),
        ChatTurn("assistant", "a dog"),
        ChatTurn("user", "and this?", [PHOTO]),
        ChatTurn("tool", "nothing"),
        ChatTurn("assistant", "a cat "),
        ChatTurn("user", " what colour? "),
        ChatTurn("assistant", "it is"),
    ])  # fmt: skip
    assert (found.image, found.prompt, found.system) == (PHOTO, "what colour?", "Be short.")
    assert found.earlier == (Turn("user", "and this?"), Turn("assistant", "a cat"))


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([ChatTurn("user", "hi")], "No message of the user has an image"),
        ([ChatTurn("assistant", "", [PHOTO])], "No message of the user has an image"),
        ([ChatTurn("user", "", [PHOTO] * 2)], "has 2 images"),
        ([ChatTurn("user", "", [PHOTO]), ChatTurn("user", "x" * 4001)], "4,000 are allowed"),
        ([ChatTurn("user", "x" * 33_000, [PHOTO]), ChatTurn("user", "what?")], "more than 32,000"),
    ],
)
def test_what_is_no_conversation_about_one_image(turns: list[ChatTurn], why: str) -> None:
    with pytest.raises(Problem, match=why):
        conversation_of(turns)


def sent(texts: list[str], *stops: str) -> tuple[list[str], list[int], int, bool]:
    """The texts that are let through one by one, the tokens with them, how many were read, and whether it stopped."""
    found, filter_ = list[Piece](), StopFilter(stops)
    for number, text in enumerate(texts):
        found += filter_.read(Piece(text, (number,), (-0.5,)))
        if filter_.found:
            break
    else:
        found += filter_.rest()
    tokens = [token for piece in found for token in piece.tokens]
    return [piece.text for piece in found if piece.text], tokens, filter_.tokens, filter_.found


@pytest.mark.parametrize(
    ("texts", "stops", "through", "tokens", "read", "stopped"),
    [
        (["a", " dog"], [], ["a", " dog"], [0, 1], 2, False),
        (["a do", "g\n", "\n", "Sure"], ["\n\n"], ["a do", "g"], [0, 1], 3, True),
        (["a do", "g\n", "\n"], ["\n\n\n"], ["a do", "g", "\n", "\n"], [0, 1, 2], 3, False),
        (["a do", "g\n", "or"], ["\n\n"], ["a do", "g", "\nor"], [0, 1, 2], 3, False),
        (["abc"], ["c", "b"], ["a"], [0], 1, True),
        (["x", "stop"], ["stop"], ["x"], [0], 2, True),
        (["", "aab"], ["ab"], ["a"], [0, 1], 2, True),
    ],
)
def test_a_stop_sequence_is_never_sent_in_part(
    texts: list[str], stops: list[str], through: list[str], tokens: list[int], read: int, *, stopped: bool
) -> None:
    found = sent(texts, *stops)
    assert ("".join(found[0]), *found[1:]) == ("".join(through), tokens, read, stopped)
    assert not any(stop in "".join(found[0]) for stop in stops)


def test_options_of_ollama() -> None:
    def given(**said: object) -> dict[str, object]:
        return OllamaOptions.model_validate(said).generation_options()

    assert given(num_ctx=4096, mirostat=1, num_predict=20, seed=-1) == {"max_new_tokens": 20}
    assert given(num_predict=-1)["max_new_tokens"] == 512
    assert given(temperature=0, top_k=40, top_p=0.9, seed=3) == {"sample": False, "sample_seed": 3}
    assert given(temperature=0.8, top_k=40)["top_k"] == 40
    assert given(repeat_penalty=1.1, num_beams=2) == {"repetition_penalty": 1.1, "num_beams": 2}
    assert OllamaOptions.model_validate({"stop": "a", "suffix": "x"}).stops == ["a"]


def test_openais_clients_read_what_is_wrong() -> None:
    problem = Problem(422, "No image.", "One is needed.")
    for path in ("/v1/chat/completions", "/v1/models/x"):
        error = json.loads(problem.response("1", path).body)["error"]
        assert (error["message"], error["type"]) == ("No image. One is needed.", "invalid_request_error")
    assert "error" not in json.loads(problem.response("1", "/v1/caption").body)
