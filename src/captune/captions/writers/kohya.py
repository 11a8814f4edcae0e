"""Captions in the metadata file of kohya's sd-scripts: one object of JSON, an entry for each image."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Self, TextIO

from captune.captions.row import CaptionRow
from captune.captions.writers.joined import digests_of, joined_text
from captune.captions.writers.writer import output_file
from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, disk_error
from captune.core.files.existing import ExistingCaptions
from captune.core.sidecars import file_text
from captune.core.text import plain_json
from captune.datasets.tables.text import load_json


class KohyaWriter:
    """The metadata file of kohya's sd-scripts: `caption` of each image by its name; tags and all else in it stay.

    The name is the one that a file that is there has for the image: its path, or its file name without the ending.
    New ones are of the second kind where all images lie in one folder, else absolute paths. Several captions are a
    line each. A failed image gets no caption.
    """

    suffix = "json"

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        self.path = None if out is None else output_file(out, self.suffix)
        self.stream = stream
        self.existing = existing or ExistingCaptions()
        self._captions: dict[str, list[str]] = {}

    @property
    def notes(self) -> list[str]:
        """Remarks for the user at the end."""
        return self.existing.notes

    def check(self) -> None:
        """Raise `CaptuneError` where a file stands that is none of kohya's, before anything is captioned."""
        if self.path is not None:
            self._entries(self.path)

    def __enter__(self) -> Self:
        self.check()
        return self

    def write(self, row: CaptionRow) -> None:
        """Take a row; all are written at the end."""
        if row.captions:
            self._captions[row.image] = [caption.text for caption in row.captions]

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            return
        if self.path is None:
            names = _names(self._captions, {})
            self.stream.write(_dumped({names[image]: {"caption": _value(file_text(texts))} for image, texts in self}))
            return
        entries = self._entries(self.path)
        noted = self._join(entries, self.path)
        text = _dumped(entries)
        regular = self.path.is_file() or not self.path.exists()  # else a pipe or a device
        if regular:
            self.existing.ledger(self.path.parent).add(noted)
        try:
            with atomic_file(self.path) as file:
                file.write(text)
        except OSError as error:
            raise disk_error(error, self.path) from error

    def __iter__(self) -> Any:
        return iter(self._captions.items())

    def _join(self, entries: dict[str, dict[str, Any]], path: Path) -> list[str]:
        """Put the captions into the entries of a file; returns what the ledger is to have of them."""
        names = _names(self._captions, entries)
        ledger = self.existing.ledger(path.parent)
        noted: list[str] = []
        for image, captions in self:
            entry = entries.setdefault(names[image], {})
            name = f"{path.name}/{names[image]}"
            text = joined_text(entry.get("caption") or "", captions, self.existing, ledger, name)
            if text is not None:
                entry["caption"] = _value(text)
                noted += digests_of(name, captions, alone=text == file_text(captions))
        return noted

    def _entries(self, path: Path) -> dict[str, dict[str, Any]]:
        """What stands in a file; raises `CaptuneError` where that is no metadata file and is not to be replaced."""
        self.existing.fetch(path)
        if not path.is_file() or not path.stat().st_size:
            return {}
        try:
            content = load_json(path)
            if not isinstance(content, dict) or not all(map(_is_entry, content.values())):
                raise CaptuneError("its entries are no objects with a text as 'caption'.")
        except CaptuneError as error:
            if self.existing.mode == "replace":
                return {}
            what = f"{path} is no metadata file of kohya's, and cannot be joined: {error.message}"
            raise CaptuneError(what, "Take another --out, or overwrite it: --existing replace") from None
        return content


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("caption") or "", str)


def _names(images: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, str]:
    """The name of each image: the one that an entry has already, else its stem, or its path where stems are not enough.

    Names with folders or endings in the file ask for paths.
    """
    stems = Counter(PurePath(image).stem for image in images)
    folders = {os.path.dirname(image) for image in images}
    by_stem = len(folders) < 2 and max(stems.values(), default=0) < 2 and not any(map(_is_path, entries))
    found = {}
    for image in images:
        whole, stem = os.path.abspath(image), PurePath(image).stem
        names = (image, whole, *((stem,) if stems[stem] == 1 else ()))
        standing = next((name for name in names if name in entries), None)
        found[image] = standing or (stem if by_stem else whole)
    return found


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name


def _value(text: str) -> str:
    """A text of a file as a value: without the line break at its end."""
    return text.replace("\r\n", "\n").removesuffix("\n")


def _dumped(entries: Mapping[str, Any]) -> str:
    text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(entries, indent=2) + "\n"
    return plain_json(text)
