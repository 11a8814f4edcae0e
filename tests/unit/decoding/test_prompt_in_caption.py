"""Whether the words of a prompt stand in the caption can be chosen, and they are joined as the tokenizer joins."""

from __future__ import annotations

import pytest

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.decoding.encoding import check_prompt, with_prompt

WORDS = ["a", "photo", "of", "##s", "cat", ",", "Ein", "Foto"]


def decode(tokens: list[int]) -> str:
    return " ".join(WORDS[token] for token in tokens).replace(" ##", "").replace(" ,", ",")


@pytest.mark.parametrize(
    ("prompt", "words", "tokens", "text"),
    [
        ("A Photo of ", [0, 1, 2], [4], "A Photo of cat"),
        ("a photo", [0, 1], [3, 2, 4], "a photos of cat"),
        ("a photo", [0, 1], [5, 4], "a photo, cat"),
        ("", [], [0, 4], "a cat"),
        ("a photo of", [0, 1, 2], [], "a photo of"),
    ],
)
def test_a_prompt_and_what_continues_it(prompt: str, words: list[int], tokens: list[int], text: str) -> None:
    assert with_prompt(prompt, words, tokens, decode) == text


@pytest.mark.parametrize("prompt", ["", " "])
def test_without_a_prompt_there_is_nothing_to_begin_with(prompt: str) -> None:
    with pytest.raises(UsageError, match="no prompt that captions could begin with") as caught:
        check_prompt(prompt, GenerationOptions(prompt_in_caption=True))
    assert "--prompt '" in caught.value.hint
    check_prompt(prompt, GenerationOptions())
    check_prompt("a photo of", GenerationOptions(prompt_in_caption=True))
