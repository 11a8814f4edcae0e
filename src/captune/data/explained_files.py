"""Explained captions as files: a sheet and its numbers for each picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

from captune.core.files import atomic_file, write_text
from captune.core.names import fit_name
from captune.data.bulk.names import EXPLAINED
from captune.data.explained import Explained


class ExplainedFolder:
    """`photo.explained.png` and `photo.explained.json` for `photo.jpg`.

    Another picture of that name gets `photo-2.explained.png`, and so on, in the order in which they come.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._taken: dict[str, int] = {}

    def write(self, explained: Explained, name: str | None = None) -> Path:
        """Write both files, for a picture of this name if it is no file; returns the sheet's path."""
        stem = Path(name or explained.image).stem or "picture"
        self._taken[stem] = count = self._taken.get(stem, 0) + 1
        numbers = self.folder / fit_name(stem if count == 1 else f"{stem}-{count}", EXPLAINED)
        sheet = numbers.with_suffix(".png")
        with atomic_file(sheet, "wb") as file:
            explained.overlay().save(file, "PNG")
        write_text(numbers, json.dumps(explained.to_json(), ensure_ascii=False) + "\n")
        return sheet
