"""Results of the page as files to take away, by the writers of `captune caption`; every one names the models."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import PurePath

from captune.captions.writers import CaptionRow
from captune.captions.writers.csv import COLUMNS, CsvWriter, line
from captune.captions.writers.json import JsonWriter
from captune.captions.writers.writer import TextFormatWriter
from captune.captions.writers.xml import XmlWriter, escaped


class CsvByModel(CsvWriter):
    """CSV with the model in a column behind the others."""

    def head(self) -> str:
        return line((*COLUMNS, "model"))

    def row(self, row: CaptionRow) -> str:
        if not row.captions:
            return line((row.image, None, None, row.status, row.error, row.model))
        return "".join(
            line((row.image, one.text, repr(one.confidence), row.status, row.error, row.model)) for one in row.captions
        )


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
            archive.writestr(f"{name}.txt", "".join(f"{caption.text}\n" for caption in row.captions))
    return file.getvalue()


def file_name(models: Sequence[str], suffix: str) -> str:
    """`captions-base-tuned.csv`: a name that tells which models wrote what is in the file."""
    return f"captions-{'-'.join(map(file_part, models))[:100]}.{suffix}"


def file_part(model: str) -> str:
    """A model's name as a part of a file name on any system."""
    return re.sub(r"[^\w.+-]+", "_", model).strip("._") or "model"
