"""Captions as a COCO caption file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, TextIO

from captune.captions.row import CaptionRow, caption_json
from captune.captions.writers.writer import TextFormatWriter
from captune.core.files.existing import ExistingCaptions
from captune.core.text import plain_json

_IN_MEMORY = 1 << 24


class CocoWriter(TextFormatWriter):
    """COCO's caption file: `images`, and an annotation for each caption with what is known of it.

    Rows of an image that follow one another are one image. A failed image is left out.
    """

    suffix = "json"

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        super().__init__(out, stream, existing=existing)
        self._image, self._images, self._ids = "", 0, count(1)
        self._annotations = SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", errors="surrogatepass")  # noqa: SIM115

    def head(self) -> str:
        return '{"info": {"description": "captions, written by captune"}, "images": ['

    def row(self, row: CaptionRow) -> str:
        if not row.captions:
            return ""
        image = ""
        if not self._images or row.image != self._image:
            image = ",\n" if self._images else "\n"
            self._image, self._images = row.image, self._images + 1
            image += dumped({"id": self._images, "file_name": row.image})
        for annotation in annotations_of(row):
            number = next(self._ids)
            numbers = {"id": number, "image_id": self._images}
            self._annotations.write((",\n" if number > 1 else "\n") + dumped(numbers | annotation))
        return image

    def _end(self, *, complete: bool) -> None:
        with self._annotations as file:
            if complete:
                self._put('\n], "annotations": [')
                file.seek(0)
                while part := file.read(_IN_MEMORY):
                    self._put(part)
                self._put("\n]}\n")


def annotations_of(row: CaptionRow) -> Iterator[dict[str, Any]]:
    for caption in row.captions:
        annotation = {"caption": caption.text, **caption_json(caption)}
        del annotation["text"]
        if row.provenance is not None:
            annotation["provenance"] = row.provenance.for_caption(caption).to_json()
        if caption.fields is not None:
            annotation["fields"] = dict(caption.fields)
        yield annotation | ({"flags": list(row.flags)} if row.flags is not None else {})


def dumped(value: dict[str, Any]) -> str:
    """An object as JSON in one line, without what a terminal obeys."""
    return plain_json(json.dumps(value, ensure_ascii=False))
