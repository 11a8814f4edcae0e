"""A caption whose confidence nobody tells, such as one of a server without log-probabilities, in every output."""

from __future__ import annotations

import io
import json
import math

import pytest

from captune.api.caption import Answer
from captune.captions.row import CaptionRow
from captune.captions.writers import WRITERS
from captune.captions.writers.parquet import table
from captune.cli.verbs import ask
from captune.core.records import Caption
from captune.video.subtitles import FilmCaptions, SceneCaption, as_json, as_table, merge_repeated

CAPTION = Caption("a dog", math.nan)
ROW = CaptionRow("a.jpg", (CAPTION, Caption("a cat", math.nan)), "ok", None, "m")


@pytest.mark.parametrize("format", ["text", "txt", "csv", "json", "jsonl", "xml"])
def test_no_text_says_nan(format: str) -> None:
    stream = io.StringIO()
    with WRITERS[format](None, stream) as writer:
        writer.write(ROW)
    assert "a dog" in stream.getvalue()
    assert "nan" not in stream.getvalue().lower()


def test_columns_have_no_value() -> None:
    (row,) = table([ROW]).to_pylist()
    assert row["confidence"] is None
    assert [one["confidence"] for one in row["captions"]] == [None, None]


def test_answers_and_scenes_have_none() -> None:
    answer = ask._row(Answer("a.jpg", "a dog", math.nan))
    assert json.loads(json.dumps(answer, allow_nan=False))["confidence"] is None
    scenes = [SceneCaption(start, start + 1, start, (CAPTION,)) for start in (0.0, 1.0)]
    film = FilmCaptions("film.mp4", tuple(merge_repeated(scenes)), 2.0, "ok", None, "m")
    assert as_table([film]) == "0:00:00.0  0:00:02.0     -  a dog\n"
    assert json.loads(as_json([film]))[0]["scenes"][0]["confidence"] is None
