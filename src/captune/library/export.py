"""`captune library export --format …`: captions of a library as a file of another format, with who wrote them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from captune.captions.provenance import Provenance, provenance_of
from captune.captions.row import CaptionRow
from captune.captions.writers import WRITERS, open_writer
from captune.captions.writers.writer import is_folder, output_file
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.existing import LEDGER, Ledger, Mode
from captune.core.files.fingerprints import file_digest
from captune.core.options.library import FilterOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption
from captune.library.database import Database
from captune.library.outgoing import Outgoing, OutgoingCaption, OutgoingImage

# What is beside a caption of a library, as columns of tables and keys of objects.
COLUMNS = {"status": "text", "who": "text", "keywords": "texts"}
# Formats with a row for each caption, and those whose file names paths that others may read from elsewhere.
_A_ROW_EACH = ("csv", "jsonl", "json", "parquet", "coco", "imagefolder")
_BY_PATH = ("kohya", "tar", "imagefolder")
# Writers that leave what others wrote in a file, or beside it.
_JOINED = ("kohya", "tar")
_BESIDE_IMAGES = ("sidecar", "xmp")
_BY_ENDING = ("csv", "json", "parquet", "xml")


def format_of(out: str) -> str | None:
    """The format that the name of a file means; None: all of the library as JSON Lines."""
    ending = os.path.splitext(out)[1].lower().removeprefix(".")
    if os.path.basename(out) == "metadata.jsonl":
        return "imagefolder"
    return "text" if ending in ("txt", "tsv") else ending if ending in _BY_ENDING else None


def export_captions(
    database: Database, folder: Path, out: Path, format: str, where: FilterOptions, progress: Progress = SILENT
) -> int:
    """Write the captions that `where` chooses, without a status the approved ones; the number of images.

    Where it chooses none, nothing is written. Images are named from the file's folder on where they lie in it, else by
    their whole path. Raises `UsageError` for a format of files beside images, `CaptuneError` where somebody changed the
    file that stands there.
    """
    WRITERS[format]  # raises for an unknown one
    if format in _BESIDE_IMAGES:
        raise UsageError(
            f"{format} is written beside or into the images.",
            database.command("library write", "--to", "xmp" if format == "xmp" else "sidecars"),
        )
    if format == "imagefolder" and is_folder(out):
        out = out / "metadata.jsonl"
    if format not in _JOINED:
        _check_own(output_file(out, WRITERS[format].suffix), database)
    mode: Mode = "keep" if format in _JOINED else "replace"
    outgoing = Outgoing(database, where)
    if not len(outgoing):
        return 0
    count = 0
    with (
        open_writer(format, out, existing=mode, provenance=True, flags=True, fields=COLUMNS) as writer,
        progress.task("Writing captions", len(outgoing)) as task,
    ):
        for count, image in enumerate(outgoing, start=1):  # noqa: B007
            rows = rows_of(image, _name(folder, image.path, out, format))
            for row in rows if format in _A_ROW_EACH else [reduce(CaptionRow.joined, rows)]:
                writer.write(row)
            task.advance()
    return count


def rows_of(image: OutgoingImage, name: str) -> Iterator[CaptionRow]:
    """A row for each caption of an image, with who wrote it."""
    for each in image.captions:
        values = {"status": each.status, "who": each.who, "keywords": list(image.keywords)}
        fields = {column: value for column, value in values.items() if value}
        confidence = float("nan") if each.confidence is None else each.confidence
        caption = Caption(each.text, confidence, fields=fields)
        flags = tuple(each.flags.split())
        yield CaptionRow(name, (caption,), "ok", None, each.model, flags, _provenance(each, caption))


def _provenance(each: OutgoingCaption, caption: Caption) -> Provenance:
    day = each.written[:10]
    if each.written_by == "person":
        return Provenance("person", date=day)
    noted = provenance_of({"provenance": json.loads(each.provenance)}) or Provenance("model", each.model, date=day)
    return noted.of([caption], noted.own_words)


def _name(folder: Path, image: str, out: Path, format: str) -> str:
    """What an image is called in a file."""
    path = folder / image
    if format in _BY_PATH:
        return str(path)
    whole = os.path.join(os.path.realpath(folder), image)
    near = os.path.realpath(out if out.is_dir() else out.parent)
    return os.path.relpath(whole, near) if whole.startswith(os.path.join(near, "")) else whole


def _check_own(out: Path, database: Database) -> None:
    """Raise `CaptuneError` where a file stands that captune did not write as it is."""
    if out.is_file() and out.stat().st_size and not Ledger(out.parent / LEDGER).has(out.name, file_digest(out)):
        raise CaptuneError(
            f"{out} was not written by captune, or was changed since.",
            "Take another --out. What people changed in it is read in by: "
            + database.command("library add", "--captions", str(out)),
        )
