"""Captions of a film as a table, JSON or subtitles (SubRip, WebVTT)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from captune.captions.row import caption_json, known, shown_confidence
from captune.captions.writers.writer import one_line
from captune.core.records import Caption


def clock(seconds: float) -> str:
    """Seconds as `0:01:02.5`."""
    tenths = round(max(seconds, 0.0) * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


@dataclass(frozen=True, slots=True)
class SceneCaption:
    """A scene with its captions, best first; times in seconds from the film's start.

    `time` is that of the frame that was captioned, `frame` the file it was saved in; `merged` counts the
    scenes that were found and have the same caption.
    """

    start: float
    end: float
    time: float
    captions: tuple[Caption, ...]
    merged: int = 1
    frame: str | None = None

    @property
    def text(self) -> str:
        """The best caption's words."""
        return self.captions[0].text

    def to_json(self) -> dict[str, Any]:
        """`start`, `end`, `time`, `text`, `confidence`, `merged`; `original`, `captions`, `frame` where there are."""
        times = {"start": self.start, "end": self.end, "time": self.time}
        row: dict[str, Any] = {name: round(seconds, 3) for name, seconds in times.items()}
        row |= {**caption_json(self.captions[0]), "merged": self.merged}
        if len(self.captions) > 1:
            row["captions"] = [caption_json(caption) for caption in self.captions]
        return row if self.frame is None else {**row, "frame": self.frame}


@dataclass(frozen=True, slots=True)
class FilmCaptions:
    """A film with its scenes; with status "error" and a reason where not all of it could be captioned."""

    film: str
    scenes: tuple[SceneCaption, ...]
    duration: float
    status: Literal["ok", "error"]
    error: str | None
    model: str

    def to_json(self) -> dict[str, Any]:
        """`film`, `model`, `duration`, `status`, `error`, `scenes`."""
        return {
            "film": self.film,
            "model": self.model,
            "duration": round(self.duration, 3),
            "status": self.status,
            "error": self.error,
            "scenes": [scene.to_json() for scene in self.scenes],
        }


def merge_repeated(scenes: Iterable[SceneCaption]) -> Iterator[SceneCaption]:
    """Neighbouring scenes with the same best caption as one, with the image of the surest."""
    last: SceneCaption | None = None
    for scene in scenes:
        if last is not None and one_line(last.text).casefold() == one_line(scene.text).casefold():
            surer = max(last, scene, key=lambda one: known(one.captions[0].confidence) or 0.0)
            last = replace(surer, start=last.start, end=scene.end, merged=last.merged + scene.merged)
        else:
            if last is not None:
                yield last
            last = scene
    if last is not None:
        yield last


def as_table(films: list[FilmCaptions]) -> str:
    """A line for each scene: start, end, how sure, caption; below each film's name where there are several."""
    lines = []
    for film in films:
        lines += [film.film] if len(films) > 1 else []
        for scene in film.scenes:
            times = f"{clock(scene.start)}  {clock(scene.end)}"
            lines += [
                f"{times}  {shown_confidence(caption.confidence)}  {one_line(caption.text)}"
                for caption in scene.captions
            ]
    return "".join(f"{line}\n" for line in lines)


def as_json(films: list[FilmCaptions]) -> str:
    """A list of films, each with its scenes."""
    return json.dumps([film.to_json() for film in films], ensure_ascii=False, indent=2) + "\n"


def has_scenes(path: Path) -> bool:
    """Whether a file that `as_json` wrote holds a caption; not where it cannot be read as one."""
    try:
        films = json.loads(path.read_text("utf-8"))
        return any(film["scenes"] for film in films)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def as_srt(films: list[FilmCaptions]) -> str:
    """SubRip: numbered blocks with `00:00:01,500 --> 00:00:04,000`; it has no escapes, so angle brackets go."""
    blocks = []
    for number, (times, text) in enumerate(_cues(films, ","), start=1):
        text = text.replace("-->", "→").replace("<", "‹").replace(">", "›")
        blocks.append(f"{number}\n{times}\n{text}\n\n")
    return "".join(blocks)


def as_vtt(films: list[FilmCaptions]) -> str:
    """`WEBVTT`, then blocks with `00:00:01.500 --> 00:00:04.000`; `&`, `<` and `>` are escaped."""
    cues = _cues(films, ".")
    return "WEBVTT\n\n" + "".join(f"{times}\n{escape(text, quote=False)}\n\n" for times, text in cues)


def _cues(films: list[FilmCaptions], point: str) -> Iterator[tuple[str, str]]:
    """The times and the text of every scene that has one."""
    for scene in (scene for film in films for scene in film.scenes if scene.text.strip()):
        start, end = round(max(scene.start, 0.0) * 1000), round(scene.end * 1000)
        yield f"{_stamp(start, point)} --> {_stamp(max(end, start + 1), point)}", one_line(scene.text)


def _stamp(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"


# By the names of `--format`; subtitles hold one film.
FORMS = {"text": as_table, "json": as_json, "srt": as_srt, "vtt": as_vtt}
SUBTITLES = ("srt", "vtt")
