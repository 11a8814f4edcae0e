"""From rows (one caption of one image) to records (one image with all its captions)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from captune.core.errors import CaptuneError
from captune.core.files.paths import Images
from captune.datasets.merge import EmbeddedImage, Problem, Problems, SourceRecord
from captune.datasets.tables.images import locate
from captune.datasets.tables.text import caption_texts


@dataclass(slots=True)
class _Entry:
    first: Row
    captions: list[str] = field(default_factory=list)
    rejected: int = 0


def group(
    rows: Iterable[Row], source: Path, images: Images | None, problems: Problems, *, near: Sequence[Path] = ()
) -> Iterator[SourceRecord]:
    """Records in the order in which their images are first named.

    All text is read first (captions of an image need not stand together); images are
    not touched. Empty captions, rows without an image and images in two splits are
    problems. `near` are more folders where images may lie, before the caption files' own.
    """
    entries: dict[tuple[str, str], _Entry] = {}
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
        texts = caption_texts(row.captions)
        reason = _unusable(row, name, texts, first_of.get(name))
        if reason:
            note(problems, row.where, reason)
            continue
        bare = row._replace(captions=(), beside=None)
        first_of.setdefault(name, bare)
        entry = entries.setdefault((name, row.question), _Entry(bare))
        entry.captions.extend(texts)
        entry.rejected += row.rejected
    if not entries:
        raise NothingUsable(source, problems)
    path_of = locate(list(first_of), list(folders), images, file=next(iter(first_of.values())).file.name)
    ids: set[str] = set()
    for (name, question), entry in entries.items():
        first = entry.first
        image = path_of(name)
        if image is None:
            note(problems, first.where, path_of.reason(name))
            continue
        identity = first.id if first.id is not None and first.id not in ids else name
        ids.add(identity)
        yield SourceRecord(
            identity, image, tuple(entry.captions), first.split, first.where, question, name, entry.rejected
        )


def _unusable(row: Row, name: str, texts: Sequence[str], first: Row | None) -> str | None:
    """Why a row gives no caption; `first` is the row that named the image first."""
    if not name:
        return row.bad or "no image is named"
    if name.startswith(("http://", "https://")):
        return f"{name} is a URL: download the image and name the file"
    if row.bad or row.error:
        return row.bad or f"{name} could not be captioned: {row.error}"
    if not texts and not row.rejected:
        return f"the caption of {name} is empty"
    if first is not None and row.split != first.split:
        here, before = row.split or "none", first.split or "none"
        return f"{name} stands in split {here} here and in {before} before ({first.where})"
    return None


# Of a file that holds both: what people wrote (to train on, to score against), or what a model wrote.
Side = Literal["references", "captions"]
_SHOWN = 8


class Row(NamedTuple):
    """Captions of an image as one place of a caption file states them.

    `name` is the image's file name, or its id where the file gives no name. `bad` says why the row cannot be used,
    `error` why a model gave no caption; `rejected` counts captions that the file itself marks as unfit. With
    `loose_id` the id may number the row and not the image. `beside` is what captune writes beside a caption
    (`columns.BESIDE`), where the file has it.
    """

    file: Path
    line: int | str
    name: str
    captions: Sequence[str]
    split: str | None = None
    id: str | None = None
    unit: str = "line"
    question: str = ""
    bad: str = ""
    error: str = ""
    rejected: int = 0
    loose_id: bool = False
    beside: Mapping[str, Any] | None = None

    @property
    def where(self) -> str:
        return f"{self.file.name}, {self.unit} {self.line}"


def row_of(record: SourceRecord) -> Row:
    """A record as a row: its image by name alone."""
    name = record.image.name if isinstance(record.image, EmbeddedImage) else str(record.image)
    place, _, _ = record.where.partition(", ")
    return Row(
        Path(place),
        record.where.removeprefix(place).removeprefix(", "),
        name,
        record.references,
        record.split,
        record.id,
        "",
        record.question,
        rejected=record.rejected,
    )


def note(problems: Problems, where: str, reason: str) -> None:
    """Collect a bad row; without a list to collect in, the first one raises `CaptuneError`."""
    if problems is None:
        raise CaptuneError(f"{where}: {reason}.", "Mend the row, or prepare with --on-bad skip to leave it out.")
    problems.append(Problem(where, reason))


def listed(problems: Sequence[Problem]) -> str:
    """The first reasons, a line each; equal ones stand once, with their number."""
    alike: dict[str, list[str]] = {}
    for problem in problems:
        alike.setdefault(problem.reason, []).append(problem.where)
    lines = [
        f"  {places[0]}: {reason}" + (f" (and {len(places) - 1:,} more like it)" if len(places) > 1 else "")
        for reason, places in list(alike.items())[:_SHOWN]
    ]
    if len(alike) > _SHOWN:
        lines.append(f"  … and {sum(map(len, list(alike.values())[_SHOWN:])):,} more")
    return "\n".join(lines)


class NothingUsable(CaptuneError):
    """A source without one caption that can be used; the message says why."""

    def __init__(
        self,
        source: Path | str,
        problems: Sequence[Problem] | None,
        hint: str = "Mend the file, or name its --format if it is another.",
    ) -> None:
        why = f":\n{listed(problems)}" if problems else ": it has no rows."
        super().__init__(f"{source} holds no caption that can be used{why}", hint)


def plain_id(value: Any) -> str | None:
    """An image id as text, the same for 1, 1.0, "1", "1.0" and "000001"; None for what is no id.

    Of a text that is no number nothing is changed but the white space around it.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value.is_integer() else None
    text = str(value).strip()
    number = text.removesuffix(".0")
    if number.isascii() and number.isdigit():
        return number.lstrip("0") or "0"
    return text or None


def id_text(value: Any) -> str | None:
    """An id as it is written; a whole number that became 1.0 in a table is 1 again. None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value) if str(value).strip() else None
