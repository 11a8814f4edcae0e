"""Images with a text or JSON file of the same name beside each."""

import codecs
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import open_regular
from captune.core.files.limits import parse_json
from captune.core.files.paths import Boundary, Images
from captune.core.sidecars import SUFFIXES, captions_in
from captune.datasets.merge import Problems, SourceRecord
from captune.datasets.sources.listing import walk_folders
from captune.datasets.tables.cells import NotText, texts_in
from captune.datasets.tables.columns import SPLIT_WORDS, find_columns
from captune.datasets.tables.files import folder_levels
from captune.datasets.tables.rows import NothingUsable, note
from captune.datasets.tables.text import LFS_POINTER, caption_texts
from captune.images.signatures import is_image_name

DESCRIPTION = (
    "image folder with a `.txt` (or `.caption`, `.json`) beside each image: a caption per line, or one of "
    "several paragraphs with empty lines between them; "
    "`train/`, `val/`, `test/` are splits"
)
RANK = 5
_TEXTS = SUFFIXES
_JSON = ".json"
_PROBED = 200
# Texts that lie in such folders and belong to no image.
_OTHERS = frozenset(("readme", "license", "licence", "notice", "changelog", "classes", "requirements"))


def sniff(source: Path, images: Path | None = None) -> str | None:
    if not source.is_dir():
        return None
    for folder in chain.from_iterable(folder_levels(source)):
        if not os.access(folder, os.R_OK):
            continue
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _PROBED)]
        stems = {os.path.splitext(name)[0] for name in names if _is_text(name)}
        for name in filter(is_image_name, names):
            if stems & {name, os.path.splitext(name)[0]} or _has_text(folder / name):
                return f"{name} has a text file of its name beside it"
            if _has_captions((folder / name).with_suffix(_JSON)):
                return f"{name} has a JSON file with its caption beside it"
    return None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    if not source.is_dir():
        raise CaptuneError(f"{source} is not a folder.", "Name the folder that holds images and text files.")
    boundary = Boundary([source], anywhere=images is not None and images.allow_outside)
    return _records(source, boundary, problems)


def _records(source: Path, boundary: Boundary, problems: Problems) -> Iterator[SourceRecord]:
    empty = True
    for here, names in walk_folders(str(source), once=True):
        folder = Path(here)
        relative = folder.relative_to(source)
        split = SPLIT_WORDS.get(relative.parts[0].lower()) if relative.parts else None
        texts = [name for name in names if _is_text(name)]
        beside = _Beside([*texts, *(name for name in names if name.lower().endswith(_JSON))])
        for name in names:
            if not is_image_name(name):
                continue
            where = (relative / name).as_posix()
            try:
                text = beside.of(name)
                if text is None:
                    raise Unusable(_missing(folder / name))
                outside = next((link for link in (name, text) if not boundary.holds(folder / link)), None)
                if outside is not None:
                    raise Unusable(boundary.reason(outside))
                captions = _captions(folder / text)
            except Unusable as error:
                note(problems, where, str(error))
                continue
            empty = False
            yield SourceRecord(where, folder / name, captions, split, where)
        for name in texts:
            if name not in beside.taken and os.path.splitext(name)[0].lower() not in _OTHERS:
                note(problems, (relative / name).as_posix(), "there is no image of that name beside it")
    if empty:
        if problems:
            raise NothingUsable(source, problems, "No image has a text file beside it: expected dog.jpg and dog.txt.")
        raise CaptuneError(f"No image in {source} has a text file beside it.", "Expected dog.jpg and dog.txt.")


class _Beside:
    """The texts of a folder: `dog.txt` and `dog.jpg.txt` are for `dog.jpg`, whatever the case of their endings."""

    def __init__(self, names: Iterable[str]) -> None:
        self.taken: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_stem.setdefault(os.path.splitext(name)[0], []).append(name)

    def of(self, image: str) -> str | None:
        """The text of an image, None where there is none; raises `Unusable` where two could be meant."""
        for stem in (image, os.path.splitext(image)[0]):
            texts = self._by_stem.get(stem, [])
            for ending in (*_TEXTS, _JSON):
                fitting = [name for name in texts if name.lower().endswith(ending)]
                self.taken.update(fitting)
                if len(fitting) > 1:
                    raise Unusable(f"{' and '.join(fitting)} lie beside it, and nothing says which is meant")
                if fitting:
                    self.taken.update(texts)
                    return fitting[0]
        return None


def _is_text(name: str) -> bool:
    return name.lower().endswith(_TEXTS)


def _has_text(image: Path) -> bool:
    return any(os.path.isfile(image.with_suffix(ending)) for ending in _TEXTS)


def _has_captions(path: Path) -> bool:
    try:
        return bool(path.is_file() and _captions(path))
    except Unusable:
        return False


def _missing(image: Path) -> str:
    text = image.with_suffix(_TEXTS[0])
    return f"{text.name} beside it is a folder" if text.is_dir() else f"there is no {text.name} beside it"


def _captions(path: Path) -> tuple[str, ...]:
    """The captions in a file; raises `Unusable` where there are none that can be read."""
    try:
        with open_regular(path) as file:
            data = file.read()
        if not path.name.lower().endswith(_JSON):
            return caption_lines(data)
        captions = caption_texts(from_json(parsed(data))[0])
        if not captions:
            raise Unusable("without a caption")
        return captions
    except Unusable as error:
        raise Unusable(f"{path.name} beside it is {error}") from None
    except OSError as error:
        raise Unusable(f"{path.name} beside it cannot be read ({error.strerror})") from None


_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Unusable(ValueError):
    """Why a text gives no captions, in a few words."""


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 with its mark, as Windows writes it. Raises `Unusable` for anything else."""
    if data.startswith(LFS_POINTER):
        raise Unusable("a Git LFS pointer, not the text itself (git lfs pull)")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        shown = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise Unusable(f"not {shown} (byte 0x{data[error.start]:02x} at offset {error.start})") from None
    if "\0" in text:
        raise Unusable("no text: it holds zero bytes")
    return text


def caption_lines(data: bytes) -> tuple[str, ...]:
    """A caption a line, or one of several paragraphs; raises `Unusable` where there is none."""
    captions = caption_texts(captions_in(decoded(data)))
    if not captions:
        raise Unusable("empty")
    return captions


def parsed(data: bytes) -> Any:
    """The value of a JSON text; raises `Unusable`."""
    try:
        return parse_json(decoded(data))
    except json.JSONDecodeError as error:
        raise Unusable(f"not valid JSON ({error.msg})") from None


def from_json(value: Any) -> tuple[Sequence[str], str | None]:
    """The captions of a JSON value (a text, a list, or an object with the usual keys) and the split it names.

    Raises `Unusable` where they are no text.
    """
    try:
        if isinstance(value, str | list):
            return texts_in(value, several=True), None
        columns = find_columns(value, image="") if isinstance(value, dict) else None
        if columns is None:
            return [], None
        if columns.unclear:
            raise NotText(columns.unclear)
        return columns.texts(value), columns.split_of(value)
    except NotText as error:
        raise Unusable(f"without a caption: {error}") from None
