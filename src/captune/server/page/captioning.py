"""Captions for the page: models loaded once, small images, and results as files to download."""

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import streamlit as st
from PIL import Image

from captune.captions.quality import flags_of
from captune.captions.wording import worded
from captune.captions.writers import CaptionRow
from captune.captions.writers.csv import COLUMNS, CsvWriter, line, lines
from captune.captions.writers.json import JsonWriter
from captune.captions.writers.writer import TextFormatWriter
from captune.captions.writers.xml import XmlWriter, escaped
from captune.core.errors import CaptuneError
from captune.core.options import WordingOptions
from captune.core.records import Caption
from captune.core.sidecars import file_text
from captune.images.open import is_heif_installed, open_image
from captune.inference.captioner import Captioner
from captune.inference.captioning import ConcurrentModel


class CsvByModel(CsvWriter):
    """CSV with the model in a column behind the others."""

    def head(self) -> str:
        return line((*COLUMNS, "model"))

    def row(self, row: CaptionRow) -> str:
        rows = [replace(row, captions=(caption,)) for caption in row.captions] or [row]
        return "".join(lines(each).removesuffix("\n") + "," + line((row.model,)) for each in rows)


class JsonByModel(JsonWriter):
    """JSON rows with a key `model`."""

    def row(self, row: CaptionRow) -> str:
        return (",\n" if self.rows else "\n") + json.dumps({**row.to_json(), "model": row.model}, ensure_ascii=False)


class XmlByModel(XmlWriter):
    """XML whose `<picture model="…">` names the model."""

    def row(self, row: CaptionRow) -> str:
        name = escaped(row.model).replace('"', "&quot;")
        return super().row(row).replace("<picture>", f'<picture model="{name}">', 1)


# By what stands on the button: the writer and the media type.
FORMATS: dict[str, tuple[type[TextFormatWriter], str]] = {
    "CSV": (CsvByModel, "text/csv"),
    "JSON": (JsonByModel, "application/json"),
    "XML": (XmlByModel, "application/xml"),
}


def as_text(rows: Sequence[CaptionRow], writer: type[TextFormatWriter]) -> str:
    """All rows in one of the text formats."""
    stream = io.StringIO()
    with writer(None, stream) as opened:
        for row in rows:
            opened.write(row)
    return stream.getvalue()


def as_sidecars(rows: Sequence[CaptionRow]) -> bytes:
    """A zip archive with a folder for each model, and in it `photo.txt` for each `photo.jpg`.

    Of images with one name all but the first are numbered.
    """
    file = io.BytesIO()
    used: set[str] = set()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            if not row.captions:
                continue
            stem = PurePath(PurePath(row.image).name).stem or "image"
            name, number = f"{file_part(row.model)}/{stem}", 1
            while name.casefold() in used:
                number += 1
                name = f"{file_part(row.model)}/{stem} ({number})"
            used.add(name.casefold())
            archive.writestr(f"{name}.txt", file_text([caption.text for caption in row.captions]))
    return file.getvalue()


def file_name(models: Sequence[str], suffix: str) -> str:
    """`captions-base-tuned.csv`: a name that tells which models wrote what is in the file."""
    return f"captions-{'-'.join(map(file_part, models))[:100]}.{suffix}"


def file_part(model: str) -> str:
    """A model's name as a part of a file name on any system."""
    return re.sub(r"[^\w.+-]+", "_", model).strip("._") or "model"


FOLDER = Path(__file__).parent / "assets" / "samples"
# Each with a caption written by a person.
SAMPLES = {
    "Dog": "a brown and white dog sits on the grass beside a yellow ball",
    "Boat": "a sailing boat on the sea at sunset",
    "Bus": "a red double-decker bus on a city street",
    "Cat": "a grey cat sits on a window sill in front of a garden",
    "Fruit": "a bowl of apples, oranges and bananas on a wooden table",
    "Lake": "a mountain lake with pine trees and a small red tent",
}


@cache
def samples() -> dict[str, tuple[bytes, str]]:
    """WebP files and their captions, by name."""
    return {name: ((FOLDER / f"{name.lower()}.webp").read_bytes(), caption) for name, caption in SAMPLES.items()}


RESULT_SIDE, THUMBNAIL_SIDE = 640, 240


@dataclass(frozen=True)
class Upload:
    """An image as it was chosen on the page: its name and the bytes of its file."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Result:
    """An image with its captions by the names of models, or with the reason why it has none.

    `image` is a small JPEG of it. `flags` say what is odd about each caption. `attention` are sheets (PNG) of where a
    model looked for each word of its first caption, or why there is none. `language` is that of the captions where one
    was chosen.
    """

    name: str
    image: bytes = b""
    captions: dict[str, tuple[Caption, ...]] = field(default_factory=dict)
    flags: dict[str, tuple[dict[str, str], ...]] = field(default_factory=dict)
    attention: dict[str, bytes | str] = field(default_factory=dict)
    language: str | None = None
    error: CaptuneError | None = None

    @property
    def alt(self) -> str:
        """The image's text alternative: its first caption and its name."""
        return f"{next(iter(self.captions.values()))[0].text} ({self.name})".strip()

    def rows(self, models: Sequence[str]) -> list[CaptionRow]:
        """A row for each of `models`."""
        if self.error:
            return [CaptionRow(self.name, (), "error", self.error.message, model) for model in models]
        return [CaptionRow(self.name, captions, "ok", None, model) for model, captions in self.captions.items()]


@dataclass(frozen=True)
class Model:
    """A captioner and the lock that visitors take turns with."""

    captioner: Captioner
    lock: threading.Lock

    @property
    def concurrency(self) -> int:
        """How many images it may have at work."""
        return self.captioner.model.concurrency if isinstance(self.captioner.model, ConcurrentModel) else 1

    def captions(self, image: Image.Image, options: Mapping[str, Any]) -> tuple[Caption, ...]:
        """Captions of an image; one that is behind a server has no beams."""
        if isinstance(self.captioner.model, ConcurrentModel):
            return tuple(self.captioner.captions(image, **{**options, "num_beams": 1}))
        with self.lock:
            return tuple(self.captioner.captions(image, **options))


@st.cache_resource(show_spinner=False, max_entries=8)
def load(model: str, options: dict[str, Any]) -> Model:
    """A model by its name; raises `CaptuneError` where it cannot be loaded."""
    return Model(Captioner.load(model, **options), threading.Lock())


# What the file chooser offers; a file is recognised by its contents, whatever its name.
SUFFIXES = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")


def accepted_suffixes() -> list[str]:
    """The suffixes of files that can be read; those of HEIC where the extra heic is installed."""
    return [*SUFFIXES, *("heic", "heif", "hif") * is_heif_installed()]


def named_apart(uploads: Sequence[Upload]) -> list[Upload]:
    """Uploads with unique names: of those with the same name all but the first are numbered."""
    used: set[str] = set()
    named = []
    for upload in uploads:
        name, number = upload.name, 1
        while name in used:
            number += 1
            path = PurePosixPath(upload.name)
            name = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
        used.add(name)
        named.append(Upload(name, upload.data))
    return named


def in_natural_order(uploads: Sequence[Upload]) -> list[Upload]:
    """Sorted by name with numbers as numbers: `photo 2` before `photo 10`."""
    return sorted(uploads, key=lambda upload: (_natural(upload.name), upload.name))


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)]


@st.cache_data(show_spinner=False, max_entries=256, scope="session")
def thumbnail(upload: Upload) -> bytes | str:
    """A small JPEG of an image, or why there is none."""
    try:
        return small_jpeg(open_image(upload.data, name=upload.name), THUMBNAIL_SIDE)
    except CaptuneError as error:
        return error.message


def caption_all(
    uploads: Sequence[Upload],
    models: Mapping[str, Model],
    options: Mapping[str, Any],
    wording: WordingOptions,
    *,
    attention: bool = False,
) -> Iterator[Result]:
    """A result for each image, in order; one that cannot be read stops nothing."""
    with ThreadPoolExecutor(max(model.concurrency for model in models.values())) as pool:
        yield from pool.map(lambda upload: caption_one(upload, models, options, wording, attention=attention), uploads)


def caption_one(
    upload: Upload,
    models: Mapping[str, Model],
    options: Mapping[str, Any],
    wording: WordingOptions,
    *,
    attention: bool = False,
) -> Result:
    """The captions of every model for an image, or why it has none; flags are about them before `wording`."""
    captions: dict[str, tuple[Caption, ...]] = {}
    flags: dict[str, tuple[dict[str, str], ...]] = {}
    sheets: dict[str, bytes | str] = {}
    language = options.get("language")
    try:
        image = open_image(upload.data, name=upload.name)
        for name, model in models.items():
            found = model.captions(image, options)
            if attention:
                with model.lock:
                    sheets[name] = _sheet(model.captioner, image, found[0], options)
            prompt = options.get("prompt") if model.captioner.model.codec.answers else None
            flags[name] = tuple(flags_of(each, language, prompt) for each in found)
            captions[name] = tuple(worded(each, wording) for each in found)
    except CaptuneError as error:
        return Result(upload.name, error=error)
    return Result(upload.name, small_jpeg(image, RESULT_SIDE), captions, flags, sheets, language)


def _sheet(captioner: Captioner, image: Image.Image, caption: Caption, options: Mapping[str, Any]) -> bytes | str:
    try:
        sheet = captioner.explain(image, caption, **options).overlay()
    except CaptuneError as error:
        return f"{error.message} {error.hint}"
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def small_jpeg(image: Image.Image, side: int) -> bytes:
    """An image no longer than `side` pixels, as a JPEG file."""
    copy = image.copy()
    copy.thumbnail((side, side))
    file = io.BytesIO()
    copy.save(file, "JPEG", quality=88)
    return file.getvalue()
