"""Pictures with a text file of the same name beside each: one caption a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats.grouping import note
from captune.data.formats.places import is_image_name, listing
from captune.data.formats.split_words import WORDS
from captune.data.formats.text import numbered
from captune.data.source import Problem, SourceRecord

DESCRIPTION = "image folder with a `.txt` beside each picture, one caption a line; `train/`, `val/`, `test/` are splits"
RANK = 5
_TEXTS = (".txt", ".caption")
_PROBED = 200
# Texts that lie in such folders and belong to no picture.
_OTHERS = frozenset(("readme", "license", "licence", "notice", "changelog", "classes", "requirements"))


def sniff(source: Path, images: Path | None = None) -> str | None:
    if not source.is_dir():
        return None
    below = [source / name for name in listing(source)[1]]
    for folder in (source, *below, *(inner / name for inner in below for name in listing(inner)[1])):
        if not os.access(folder, os.R_OK):
            continue
        with os.scandir(folder) as entries:
            for entry in islice(entries, _PROBED):
                stem, suffix = os.path.splitext(entry.path)
                if is_image_name(entry.name) and any(os.path.isfile(stem + text) for text in _TEXTS):
                    return f"{entry.name} has a text file of its name beside it" if suffix else None
    return None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    if not source.is_dir():
        raise CaptuneError(f"{source} is not a folder.", "Name the folder that holds pictures and text files.")
    found = False
    for folder, names in _walk(source):
        relative = folder.relative_to(source)
        split = WORDS.get(relative.parts[0].lower()) if relative.parts else None
        stems = {os.path.splitext(name)[0] for name in names if is_image_name(name)}
        for name in names:
            stem, suffix = os.path.splitext(name)
            where = (relative / name).as_posix()
            if is_image_name(name):
                texts = [folder / (stem + text) for text in _TEXTS if stem + text in names]
                captions = tuple(line.strip() for _, line in numbered(texts[0])) if _any_text(texts) else ()
                if captions:
                    found = True
                    yield SourceRecord(where, folder / name, captions, split, where)
                else:
                    note(problems, where, "its text file is empty" if texts else f"there is no {stem}.txt beside it")
            elif suffix in _TEXTS and stem not in stems and stem.lower() not in _OTHERS:
                note(problems, where, "there is no picture of that name beside it")
    if not found:
        raise CaptuneError(f"No picture in {source} has a text file beside it.", "Expected dog.jpg and dog.txt.")


def _any_text(paths: list[Path]) -> bool:
    return bool(paths) and paths[0].stat().st_size > 0 and bool(paths[0].read_bytes().strip(b"\xef\xbb\xbf \t\r\n"))


def _walk(source: Path) -> Iterator[tuple[Path, dict[str, None]]]:
    """Folders and the names in them, in order; follows links, but into no folder twice."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield Path(folder), dict.fromkeys(sorted(name for name in names if not name.startswith(".")))
