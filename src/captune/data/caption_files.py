"""Captions to look through: of captune, or of anything else that `captune score` reads."""

from __future__ import annotations

import os
from pathlib import Path

from captune.core.parsed import parse_json
from captune.core.records import Caption
from captune.data.bulk.names import DUPLICATES
from captune.data.formats.rows import NothingUsable
from captune.data.results import Results, read_results
from captune.data.writers.row import CaptionRow, confidence_in, flags_in


def read_captions(path: str | os.PathLike[str]) -> list[CaptionRow]:
    """A row for each image of a file, of a job's folder or of standard input (`-`), as `captune score` reads them.

    Those without a caption come last: images that failed, and what could not be read, named by its place in the file.
    Raises `CaptuneError` where nothing could be read.
    """
    found = read_results(os.fspath(path), "captions")
    if not found.texts and not found.failed:
        raise NothingUsable(os.fspath(path), found.problems)
    rows = [_row(found, key, texts) for key, texts in found.texts.items()]
    failed = {found.names.get(key, key): reason for key, reason in found.failed.items()}
    failed |= {problem.where: problem.reason for problem in found.problems}
    return [*rows, *(CaptionRow(name, (), "error", reason, "") for name, reason in failed.items())]


def read_duplicates(path: str | os.PathLike[str]) -> dict[str, str]:
    """Of the folder of a job: images that look like an earlier one, and which; empty of anything else."""
    listed = Path(path) / DUPLICATES
    if not listed.is_file():
        return {}
    found: dict[str, str] = {}
    for line in listed.read_text("utf-8").splitlines():
        value = parse_json(line)
        found.setdefault(value["image"], value["duplicate_of"])
    return found


def _row(found: Results, key: str, texts: list[str]) -> CaptionRow:
    beside = found.beside.get(key, {})
    name = found.names.get(key, key)
    try:
        confidence, flags = confidence_in(beside.get("confidence")), flags_in(beside.get("flags"))
    except (TypeError, ValueError):
        reason = f"a confidence that is no number: {beside.get('confidence')!r}"
        return CaptionRow(name, (), "error", reason, "")
    captions = tuple(Caption(text, confidence, original=beside.get("original") or None) for text in texts)
    return CaptionRow(name, captions, "ok", None, "", flags)
