"""Captions as the metadata file of Hugging Face's ImageFolder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from captune.captions.row import CaptionRow
from captune.captions.writers.coco import annotations_of, dumped
from captune.captions.writers.writer import TextFormatWriter, is_folder
from captune.core.errors import CaptuneError
from captune.core.files.existing import ExistingCaptions


class ImageFolderWriter(TextFormatWriter):
    """`metadata.jsonl` of Hugging Face's ImageFolder: `file_name` from its folder on, the best caption as `text`.

    `captions` has all captions with what is known of each. The images lie in that folder, or below it. Rows of an image
    that follow one another are one. A failed image is left out.
    """

    suffix = "jsonl"

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        file = out / "metadata.jsonl" if out is not None and is_folder(out) else out
        super().__init__(file, stream, existing=existing)
        self._pending: list[CaptionRow] = []

    def row(self, row: CaptionRow) -> str:
        if not row.captions:
            return ""
        same = bool(self._pending) and self._pending[0].image == row.image
        line = "" if same else self.tail()
        self._pending.append(row)
        return line

    def tail(self) -> str:
        if not self._pending:
            return ""
        image, captions = self._pending[0].image, [each for row in self._pending for each in annotations_of(row)]
        self._pending = []
        text = captions[0]["caption"]
        return dumped({"file_name": self._name(image), "text": text, "captions": captions}) + "\n"

    def _name(self, image: str) -> str:
        if self.path is None:
            return image
        folder = os.path.realpath(self.path.parent)
        whole = os.path.join(os.path.realpath(os.path.dirname(image)), os.path.basename(image))
        if not whole.startswith(os.path.join(folder, "")):
            raise CaptuneError(
                f"{image} does not lie in {folder}, where {self.path.name} is to be.",
                "Images of an ImageFolder lie beside this file: --out IMAGES/metadata.jsonl",
            )
        return os.path.relpath(whole, folder).replace(os.sep, "/")
