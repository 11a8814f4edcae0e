"""From rows (one caption of one picture) to records (one picture with all its captions, or answers to a question)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from captune.data.formats.pictures import locate
from captune.data.formats.rows import NothingUsable, Row, note
from captune.data.formats.text import caption_text
from captune.data.inside import Images
from captune.data.source import Problem, SourceRecord


class _Picture:
    __slots__ = ("captions", "first", "rejected")

    def __init__(self, first: Row) -> None:
        self.first = first._replace(captions=(), beside=None)
        self.captions: list[str] = []
        self.rejected = 0


def group(
    rows: Iterable[Row],
    source: Path,
    images: Images | None,
    problems: list[Problem] | None,
    *,
    near: Sequence[Path] = (),
) -> Iterator[SourceRecord]:
    """Records in the order in which their pictures are first named.

    All text is read first (captions of a picture need not stand together); pictures are
    not touched. Empty captions, rows without a picture and pictures in two splits are
    problems. `near` are more folders where pictures may lie, before the caption files' own.
    """
    pictures: dict[tuple[str, str], _Picture] = {}
    first_of: dict[str, Row] = {}
    folders: dict[Path, None] = dict.fromkeys(near)
    if source.is_dir():
        folders.setdefault(source)
    file: Path | None = None
    for row in rows:
        if row.file is not file:
            file = row.file
            folders.setdefault(file.parent)
        name = row.name.strip()
        texts = [text for text in map(caption_text, row.captions) if text]
        reason = _unusable(row, name, texts, first_of.get(name))
        if reason:
            note(problems, row.where, reason)
            continue
        first_of.setdefault(name, row._replace(captions=(), beside=None))
        picture = pictures.get((name, row.question))
        if picture is None:
            picture = pictures[name, row.question] = _Picture(row)
        picture.captions.extend(texts)
        picture.rejected += row.rejected
    if not pictures:
        raise NothingUsable(source, problems)
    path_of = locate(list(first_of), list(folders), images, file=next(iter(first_of.values())).file.name)
    seen: set[str] = set()
    for (name, question), picture in pictures.items():
        first = picture.first
        image = path_of(name)
        if image is None:
            note(problems, first.where, path_of.reason(name))
            continue
        identity = first.id if first.id is not None and first.id not in seen else name
        seen.add(identity)
        yield SourceRecord(
            identity, image, tuple(picture.captions), first.split, first.where, question, name, picture.rejected
        )


def _unusable(row: Row, name: str, texts: Sequence[str], first: Row | None) -> str | None:
    """Why a row gives no caption; `first` is the row that named the image first."""
    if not name:
        return row.bad or "no picture is named"
    if name.startswith(("http://", "https://")):
        return f"{name} is a URL: download the picture and name the file"
    if row.bad or row.error:
        return row.bad or f"{name} could not be captioned: {row.error}"
    if not texts and not row.rejected:
        return f"the caption of {name} is empty"
    if first is not None and row.split != first.split:
        here, before = row.split or "none", first.split or "none"
        return f"{name} stands in split {here} here and in {before} before ({first.where})"
    return None
