"""Captions for the page: models that are loaded once, pictures small enough to keep."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from PIL import Image

from captune.app.captioner import Captioner
from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.data.images import open_image
from captune.data.writers import CaptionRow
from captune.web.settings import PageSettings

SHOWN_SIDE = 640


@dataclass(frozen=True)
class Picture:
    """A picture that somebody gave: its name and the bytes of its file."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Result:
    """What models said of a picture, by their names; `shown` is a small JPEG of it.

    `looked` are sheets (PNG) of where they looked for each word of their first caption, or why there is none.
    """

    name: str
    shown: bytes
    said: dict[str, tuple[Caption, ...]]
    looked: dict[str, bytes | str] = field(default_factory=dict)

    @property
    def alt(self) -> str:
        """The picture in words, for who does not see it."""
        return next(iter(self.said.values()))[0].text

    def rows(self) -> Iterator[CaptionRow]:
        """A row for each model."""
        for model, captions in self.said.items():
            yield CaptionRow(self.name, captions, "ok", None, model)


@dataclass(frozen=True)
class Model:
    """A captioner and whose turn it is: visitors use it one after another."""

    captioner: Captioner
    turn: threading.Lock


@st.cache_resource(show_spinner=False, max_entries=8)
def _loaded(model: str, run_on: str) -> Model:
    return Model(Captioner.load(model, **json.loads(run_on)), threading.Lock())


def load(settings: PageSettings, name: str) -> Model:
    """One of the app's models; raises `CaptuneError` where it cannot be loaded."""
    return _loaded(settings.models[name], json.dumps(settings.run_on, sort_keys=True))


def describe(
    picture: Picture, models: Mapping[str, Model], options: Mapping[str, Any], *, explain: bool = False
) -> Result:
    """What every model says of a picture, and where it looked; raises `CaptuneError` for one that cannot be read."""
    image = open_image(picture.data, name=picture.name)
    said: dict[str, tuple[Caption, ...]] = {}
    looked: dict[str, bytes | str] = {}
    for name, model in models.items():
        with model.turn:
            said[name] = tuple(model.captioner.captions(image, **options))
            if explain:
                looked[name] = _sheet(model.captioner, image, said[name][0], options)
    return Result(picture.name, small_jpeg(image), said, looked)


def _sheet(captioner: Captioner, image: Image.Image, caption: Caption, options: Mapping[str, Any]) -> bytes | str:
    try:
        sheet = captioner.explain(image, caption, **options).overlay()
    except CaptuneError as error:
        return error.message
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def describe_all(
    pictures: Sequence[Picture], models: Mapping[str, Model], options: Mapping[str, Any], *, explain: bool = False
) -> Iterator[tuple[Picture, Result | CaptuneError]]:
    """Results in order; a bad picture gives its error and stops nothing."""
    for picture in pictures:
        try:
            yield picture, describe(picture, models, options, explain=explain)
        except CaptuneError as error:
            yield picture, error


def small_jpeg(image: Image.Image) -> bytes:
    """A picture no longer than `SHOWN_SIDE` pixels, as a JPEG file."""
    copy = image.copy()
    copy.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    file = io.BytesIO()
    copy.save(file, "JPEG", quality=88)
    return file.getvalue()
