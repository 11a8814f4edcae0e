"""Results of the app as files to take away, by the writers of `captune caption`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import PurePath

from captune.data.writers import CaptionRow, open_writer

# Name of the button, file name, media type.
FORMATS = {
    "CSV": ("csv", "captions.csv", "text/csv"),
    "JSON": ("json", "captions.json", "application/json"),
    "XML": ("xml", "captions.xml", "application/xml"),
}
SIDECARS = ("captions.zip", "application/zip")


def as_text(rows: Sequence[CaptionRow], format: str) -> str:
    """All rows in one of the text formats."""
    stream = io.StringIO()
    with open_writer(format, stream=stream) as writer:
        for row in rows:
            writer.write(row)
    return stream.getvalue()


def as_sidecars(rows: Sequence[CaptionRow]) -> bytes:
    """A zip archive with `photo.txt` for each `photo.jpg`; of pictures with one name all but the first are numbered."""
    file = io.BytesIO()
    taken: dict[str, int] = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for row in rows:
            if not row.captions:
                continue
            stem = PurePath(PurePath(row.image).name).stem or "picture"
            taken[stem] = taken.get(stem, 0) + 1
            name = stem if taken[stem] == 1 else f"{stem} ({taken[stem]})"
            archive.writestr(f"{name}.txt", "".join(f"{caption.text}\n" for caption in row.captions))
    return file.getvalue()
