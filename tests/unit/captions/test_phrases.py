"""What models that chat write instead of a caption is flagged, and what captions say is not."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from captune.captions.quality import RULES, flags_of
from captune.core.records import Caption


def flags(text: str, prompt: str | None = None) -> list[str]:
    return list(flags_of(Caption(text, math.nan), prompt=prompt))


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("I'm sorry, but I can't describe people in images.", "refusal"),
        ("I’m unable to view images directly.", "refusal"),
        ("“I cannot help with that request.”", "refusal"),
        ("As an AI language model, I do not see the image.", "refusal"),
        ("Unfortunately, I cannot see it", "refusal"),
        ("Es tut mir leid, das geht nicht mit diesem Bild.", "refusal"),
        ("Je suis désolé, je ne vois pas d'image.", "refusal"),
        ("Sure! A dog runs on a beach.", "chat"),
        ("Here is a caption for the image: a dog runs.", "chat"),
        ("Here's a one-sentence description:\n\na dog runs", "chat"),
        ("**Caption:** a dog runs on a beach", "chat"),
        ("Alt text: a dog runs on a beach", "chat"),
        ("A dog runs on a beach. Let me know if you need more.", "chat"),
        ("<think>the user wants a caption", "thinking"),
        ("the answer is short</think> a dog", "thinking"),
        ("◁think▷ a dog", "thinking"),
    ],
)
def test_words_that_are_no_caption(text: str, flag: str) -> None:
    assert flags(text) == [flag]


@pytest.mark.parametrize(
    "text",
    [
        "a man holds a sign that says I'm sorry",
        "a woman with a sign : i can not stay",
        "two people sit here in the sun",
        "a sorry looking dog in the rain",
        "a caption contest poster on a wall",
        "here a dog runs through tall grass",
        "a sure footed goat climbs a cliff",
        "a man thinks about his next move",
        "a title fight in a boxing ring",
    ],
)
def test_captions_with_such_words(text: str) -> None:
    assert flags(text) == []


def test_a_prompt_that_is_repeated() -> None:
    prompt = "Describe this image in one sentence."
    assert flags("Describe this image in one sentence: a dog runs.", prompt) == ["echo"]
    assert flags("a dog runs", prompt) == []
    assert flags("a photo of a dog", "a photo of") == [], "three words may come by chance"


def test_all_rules_are_named_and_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "bulk.md").read_text(encoding="utf-8")
    for name in RULES:
        assert f"| `{name}` |" in page


def test_references_of_people_are_no_chat(test_data: Path) -> None:
    """Of Flickr8k's 40,000."""
    with open(test_data / "flickr8k" / "captions.txt", encoding="utf-8", newline="") as file:
        texts = [row["caption"] for row in csv.DictReader(file)]
    wrong = [text for text in texts if {"refusal", "chat", "thinking"} & set(flags(text))]
    assert len(texts) > 40_000
    assert wrong == []
