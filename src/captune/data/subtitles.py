"""Subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from captune.data.writers.writer import one_line


@dataclass(frozen=True, slots=True)
class Cue:
    """A line of text from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def srt(cues: Iterable[Cue]) -> str:
    """Numbered blocks with `00:00:01,500 --> 00:00:04,000`; the format has no escapes, so angle brackets go."""
    blocks = []
    for number, cue in enumerate((cue for cue in cues if cue.text.strip()), start=1):
        text = one_line(cue.text).replace("-->", "→").replace("<", "‹").replace(">", "›")
        blocks.append(f"{number}\n{_span(cue, ',')}\n{text}\n\n")
    return "".join(blocks)


def vtt(cues: Iterable[Cue]) -> str:
    """`WEBVTT`, then blocks with `00:00:01.500 --> 00:00:04.000`; `&`, `<` and `>` are escaped."""
    blocks = [f"{_span(cue, '.')}\n{escape(one_line(cue.text), quote=False)}\n\n" for cue in cues if cue.text.strip()]
    return "WEBVTT\n\n" + "".join(blocks)


def clock(seconds: float) -> str:
    """Seconds as `0:01:02.5`."""
    tenths = round(max(seconds, 0.0) * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def _span(cue: Cue, point: str) -> str:
    start, end = round(max(cue.start, 0.0) * 1000), round(cue.end * 1000)
    return f"{_stamp(start, point)} --> {_stamp(max(end, start + 1), point)}"


def _stamp(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
