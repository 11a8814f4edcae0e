"""What stands around a caption, and how long it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captune
from captune.captions.wording import shortened, worded
from captune.core.errors import UsageError
from captune.core.options import WordingOptions
from captune.core.records import Caption
from stand_in import said, stand_in


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "A Dog\n runs.  It  barks."),
        ({"one_line": True}, "A Dog runs. It barks."),
        ({"lower_case": True, "one_line": True}, "a dog runs. it barks."),
        ({"prefix": "ohwx,", "one_line": True}, "ohwx, A Dog runs. It barks."),
        ({"prefix": "ohwx,\n", "one_line": True}, "ohwx,\nA Dog runs. It barks."),
        ({"prefix": "OHWX", "lower_case": True, "one_line": True}, "OHWX a dog runs. it barks."),
        ({"suffix": "high quality", "one_line": True}, "A Dog runs. It barks. high quality"),
        ({"suffix": ", film grain", "one_line": True}, "A Dog runs. It barks., film grain"),
        ({"max_characters": 12, "one_line": True}, "A Dog runs."),
        ({"max_characters": 17, "prefix": "ohwx,", "one_line": True}, "ohwx, A Dog runs."),
    ],
)
def test_a_caption_is_worded(options: dict[str, Any], text: str) -> None:
    found = worded(Caption("A Dog\n runs.  It  barks.", 0.5, (1, 2)), WordingOptions(**options))
    assert (found.text, found.confidence, found.tokens) == (text, 0.5, (1, 2))
    assert not options.get("max_characters") or len(found.text) <= options["max_characters"]


@pytest.mark.parametrize(
    ("text", "most", "short"),
    [
        ("a dog runs", 10, "a dog runs"),
        ("a dog runs", 9, "a dog"),
        ("a dog, runs far", 8, "a dog"),
        ("One. Two three four five six seven", 20, "One. Two three four"),
        ("One two three. Four five", 20, "One two three."),
        ('She says "no." Then she goes', 18, 'She says "no."'),
        ("Version 1.5 of a sign", 11, "Version 1.5"),
        ("unbelievably", 5, "unbel"),
        ("一只狗在跑。天气很好。", 7, "一只狗在跑。"),
        ("", 3, ""),
    ],
)
def test_it_ends_with_a_sentence_or_a_word(text: str, most: int, short: str) -> None:
    assert shortened(text, most) == short


def test_nothing_is_added_to_no_words() -> None:
    assert worded(Caption("  ", 0.5), WordingOptions(prefix="ohwx,")).text == "  "


def test_there_has_to_be_room() -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        worded(Caption("a dog", 0.5), WordingOptions(prefix="a long trigger", max_characters=10))


def test_rows_are_worded_and_flags_are_about_what_the_model_wrote(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (20, 20), (250, 20, 20)).save(photos / "a.png")
    wording = {"prefix": "Sure!", "max_characters": 18, "sight_check": False, "environment": {}}
    with stand_in(lambda asked, number: said("a red square on a wall")) as server:
        captune.caption_job(photos, tmp_path / "out", model=server.name, **wording)
        (shown,) = captune.caption(photos, model=server.name, **wording)
        assert "Sure" not in server.asked[0].prompt
    (row,) = (json.loads(line) for line in next((tmp_path / "out").glob("*.jsonl")).open())
    assert (row["caption"], row["flags"]) == ("Sure! a red square", [])
    assert shown.captions[0].text == "Sure! a red square"
