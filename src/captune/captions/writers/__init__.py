"""Captions out: to the terminal, into files, or beside the images. One format, one file, one line here."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TextIO

from captune.captions.row import CaptionRow
from captune.captions.writers.writer import ShardWriter, Writer
from captune.core.errors import UsageError
from captune.core.files.existing import ExistingCaptions, Mode
from captune.core.stores.files import is_remote
from captune.core.tables import Table

__all__ = ["WRITERS", "CaptionRow", "ShardWriter", "Writer", "check_existing", "check_suffix", "open_writer"]

WRITERS = Table(
    "output format",
    {
        "text": "captune.captions.writers.text:TextWriter",
        "txt": "captune.captions.writers.text:PlainTextWriter",
        "json": "captune.captions.writers.json:JsonWriter",
        "jsonl": "captune.captions.writers.json:JsonLinesWriter",
        "csv": "captune.captions.writers.csv:CsvWriter",
        "xml": "captune.captions.writers.xml:XmlWriter",
        "parquet": "captune.captions.writers.parquet:ParquetWriter",
        "sidecar": "captune.captions.writers.sidecar:SidecarWriter",
        "coco": "captune.captions.writers.coco:CocoWriter",
        "imagefolder": "captune.captions.writers.image_folder:ImageFolderWriter",
        "kohya": "captune.captions.writers.kohya:KohyaWriter",
        "tar": "captune.captions.writers.tar:TarWriter",
        "xmp": "captune.captions.writers.alt_text:AltTextWriter",
    },
    group="captune.writers",
)


def open_writer(
    format: str,
    out: str | os.PathLike[str] | None = None,
    stream: TextIO | None = None,
    *,
    in_place: bool = False,
    existing: Mode = "keep",
    provenance: bool = False,
    flags: bool = False,
    sidecar_suffix: str = ".txt",
    fields: Mapping[str, str] | None = None,
) -> Writer:
    """A writer of `format`, to be used in a `with` block.

    Without `out` (or with "-") rows go to `stream` (standard output by default), each as soon as it is there. With
    `out` they go to a file that appears when the block ends without an error: `out` itself, or `captions.SUFFIX` in
    it where `out` is a folder (it exists as one, or its name has no suffix). `sidecar` mirrors the images' folders in
    it. A file for an address such as `s3://bucket/captions.csv` is uploaded at the end. With `in_place` the images
    themselves are changed (`xmp` alone). `existing` says what becomes of a person's captions that are there
    already; with `provenance` and `flags` tables have columns for these, as for `fields` (names with kinds, as of a
    `Structure`). Raises `UsageError` for an unknown format.
    """
    writer = WRITERS[format]
    standing = ExistingCaptions(existing)
    if "existing" in signature(writer).parameters:  # writers of other packages may know nothing of it
        writer = partial(writer, existing=standing)
    check_suffix(format, sidecar_suffix)
    if format == "sidecar":
        writer = partial(writer, suffix=sidecar_suffix)
    if provenance and "provenance" in signature(WRITERS[format]).parameters:
        writer = partial(writer, provenance=True)
    if flags and "flags" in signature(WRITERS[format]).parameters:
        writer = partial(writer, flags=True)
    if fields and "fields" in signature(WRITERS[format]).parameters:
        writer = partial(writer, fields=fields)
    if in_place:
        if format != "xmp":
            raise UsageError("--in-place goes with --format xmp alone.", "Add --format xmp, or leave it out.")
        writer = partial(writer, in_place=True)
    if out is not None and is_remote(os.fspath(out)):
        from captune.captions.writers.uploaded import UploadedShardWriter, UploadedWriter

        kind = UploadedShardWriter if issubclass(WRITERS[format], ShardWriter) else UploadedWriter
        return kind(writer, os.fspath(out), sys.stdout if stream is None else stream, standing)
    path = None if out is None or os.fspath(out) == "-" else Path(out)
    made: Writer = writer(path, sys.stdout if stream is None else stream)
    return made


def check_suffix(format: str, sidecar_suffix: str) -> None:
    """Raise `UsageError` where another ending is chosen for sidecars, and none are written."""
    if sidecar_suffix != ".txt" and format != "sidecar":
        raise UsageError("--sidecar-suffix goes with --format sidecar alone.", "Add --format sidecar, or leave it out.")


def check_existing(format: str, out: str | os.PathLike[str], existing: Mode = "keep") -> None:
    """Raise `CaptuneError` where a writer would find in the end that what stands there is in its way."""
    if is_remote(os.fspath(out)):
        if format == "tar" and existing != "replace":
            from captune.captions.writers.tar import check_tars
            from captune.core.stores.local import open_store

            check_tars(open_store(os.fspath(out)))
    else:
        check = getattr(open_writer(format, out, existing=existing), "check", None)
        if check is not None:
            check()
