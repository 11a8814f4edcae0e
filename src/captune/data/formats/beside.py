"""The text that lies beside a picture, in a file or a tar member, as captions or as the reason why it has none."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from typing import Any

from captune.core.parsed import parse_json
from captune.data.formats.cells import NotText, texts_in
from captune.data.formats.columns import find_columns
from captune.data.formats.text import LFS_POINTER, caption_text

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
    """A caption a line; raises `Unusable` where there is none."""
    captions = tuple(caption for caption in map(caption_text, decoded(data).splitlines()) if caption)
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
