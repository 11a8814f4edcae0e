"""Subtitles as their formats ask, and what is said of a film as JSON and as a table."""

from __future__ import annotations

import json
import re

import pytest

from captune.core.records import Caption
from captune.video.subtitles import FORMS, FilmCaptions, SceneCaption, as_srt, as_vtt, clock, merge_repeated


def scene(start: float, end: float, text: str, confidence: float = 0.5, **more: object) -> SceneCaption:
    return SceneCaption(start, end, (start + end) / 2, (Caption(text, confidence),), **more)  # type: ignore[arg-type]


def film(*scenes: SceneCaption, error: str | None = None) -> FilmCaptions:
    return FilmCaptions("a.mp4", scenes, 10.0, "error" if error else "ok", error, "m")


CUES = film(
    scene(0, 1.5, "a dog"), scene(1.5, 3599.9996, "two\nmen &  a <b>cat</b> --> there"), scene(3661.25, 3661.25, "end")
)


def test_srt() -> None:
    assert as_srt([CUES]) == (
        "1\n00:00:00,000 --> 00:00:01,500\na dog\n\n"
        "2\n00:00:01,500 --> 01:00:00,000\ntwo men & a ‹b›cat‹/b› → there\n\n"
        "3\n01:01:01,250 --> 01:01:01,251\nend\n\n"
    )


def test_vtt() -> None:
    assert as_vtt([CUES]) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.500\na dog\n\n"
        "00:00:01.500 --> 01:00:00.000\ntwo men &amp; a &lt;b&gt;cat&lt;/b&gt; --&gt; there\n\n"
        "01:01:01.250 --> 01:01:01.251\nend\n\n"
    )


def test_a_scene_without_words_has_no_cue() -> None:
    assert as_srt([film(scene(0, 1, " "), scene(1, 2, "a"))]).startswith("1\n00:00:01,000")
    assert as_vtt([film(scene(0, 1, ""))]) == "WEBVTT\n\n"


@pytest.mark.parametrize(("form", "codecs"), [("srt", {"srt", "subrip"}), ("vtt", {"webvtt"})])
def test_ffmpeg_reads_what_is_written(form: str, codecs: set[str], tmp_path: object) -> None:
    av = pytest.importorskip("av")
    path = f"{tmp_path}/a.{form}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(FORMS[form]([film(scene(0, 2, "ein Hund läuft"), scene(2.5, 4, "zwei & drei"))]))
    with av.open(path) as found:
        stream = found.streams.subtitles[0]
        assert stream.codec_context.name in codecs
        packets = [p for p in found.demux(stream) if p.size]
    assert [float(p.pts * p.time_base) for p in packets] == [0, 2.5]
    assert [float(p.duration * p.time_base) for p in packets] == [2, 1.5]
    assert bytes(packets[0]).decode() == "ein Hund läuft"


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.96, 3661.25, -1)] == ["0:00:00.0", "0:01:00.0", "1:01:01.2", "0:00:00.0"]


def test_neighbours_that_say_the_same_become_one() -> None:
    scenes = [scene(0, 1, "a dog", 0.2), scene(1, 2, "A  dog", 0.6), scene(2, 3, "a cat"), scene(3, 4, "a dog")]
    first, *others = merge_repeated(scenes)
    assert (first.start, first.end, first.time, first.merged) == (0, 2, 1.5, 2)
    assert first.captions[0] == Caption("A  dog", 0.6)
    assert [one.merged for one in others] == [1, 1]
    assert list(merge_repeated([])) == []


def test_json() -> None:
    german = SceneCaption(
        1.0, 2.0, 1.23456, (Caption("ein Hund", 0.5, original="a dog"), Caption("b", 0.25, original="c")), frame="x.jpg"
    )
    (found,) = json.loads(FORMS["json"]([film(scene(0, 1, "a"), german, error="truncated")]))
    assert {k: v for k, v in found.items() if k != "scenes"} == {
        "film": "a.mp4", "model": "m", "duration": 10.0, "status": "error", "error": "truncated",
    }  # fmt: skip
    assert found["scenes"][0] == {
        "start": 0, "end": 1, "time": 0.5, "text": "a", "confidence": 0.5, "merged": 1,
    }  # fmt: skip
    assert found["scenes"][1] == {
        "start": 1, "end": 2, "time": 1.235, "text": "ein Hund", "confidence": 0.5, "original": "a dog", "merged": 1,
        "captions": [{"text": "ein Hund", "confidence": 0.5, "original": "a dog"},
                     {"text": "b", "confidence": 0.25, "original": "c"}],
        "frame": "x.jpg",
    }  # fmt: skip


def test_table() -> None:
    one = FORMS["text"]([film(scene(0, 1.25, "a dog"), scene(1.25, 3, "a\tcat"))])
    assert one == "0:00:00.0  0:00:01.2  0.50  a dog\n0:00:01.2  0:00:03.0  0.50  a cat\n"
    assert re.match(r"a\.mp4\n0:00:00\.0 ", FORMS["text"]([film(scene(0, 1, "a")), film()]))
