"""`captune prepare`: a source of pictures with captions becomes verified splits."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captune import __version__
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import PrepareConfig, PrepareOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.data.downloads import DOWNLOADS, download
from captune.data.duplicates import DuplicatePair, count_by_splits, find_duplicates
from captune.data.formats import find_format, read_source
from captune.data.formats.official import official_split
from captune.data.gather import gather
from captune.data.prepared import DUPLICATES, IMAGES, PROBLEMS, SplitCount, write_splits, write_table
from captune.data.source import Problem
from captune.data.splits import assign
from captune.data.staging import staged
from captune.data.verify import Look, verify

_SHOWN = 8


@dataclass(frozen=True)
class PrepareResult:
    """What `prepare` made.

    `format` and `why` say how the source was read, `how` how it was split; `problems` are the
    pictures and rows that were left out, `duplicates` near-copies across splits.
    """

    folder: Path
    format: str
    why: str
    how: str
    splits: dict[str, SplitCount]
    problems: tuple[Problem, ...]
    duplicates: tuple[DuplicatePair, ...]
    notes: tuple[str, ...]
    digest: str
    seconds: float


def prepare(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Progress = SILENT, **options: Any
) -> PrepareResult:
    """Read a data set, open every picture once, split it and write the prepared folder `out`.

    `source` is a folder or file, `flickr8k`, `flickr30k` or `coco` (downloaded where no folder
    of that name exists), or `hf:org/name`. `options` are those of `captune prepare`: format,
    split, seed, on_bad, images, max_pixels, duplicates, workers. Raises `CaptuneError` for a
    source that cannot be used and, with on_bad="fail", for the first bad picture or row.
    An `out` that was prepared before is replaced once everything is done.
    """
    started = time.monotonic()
    settings = resolve(PrepareConfig, flags=options, environment=os.environ).values.prepare
    folder = Path(out)
    with staged(folder) as stage:
        path = _find(os.fspath(source), folder, progress)
        name, why = (settings.format, "as told") if settings.format else find_format(path, _folder(settings.images))
        problems: list[Problem] = []
        _, records = read_source(path, name, settings.images, problems)
        gathered = gather(records, stage / IMAGES, problems, one_split=settings.split == ("auto",), progress=progress)
        _refuse_own_pictures(gathered.records, folder)
        if not gathered.records:
            raise CaptuneError(f"{path} has no picture with a caption.", "Is this the right folder?")
        looks = list(_verified(gathered.records, settings, stage, problems, progress))
        _check(problems, len(gathered.records), len(looks), settings, folder)
        good = [gathered.records[look.index] for look in looks]
        assigned = assign(good, settings.split, settings.seed, lambda wanted: official_split(wanted, path))
        notes = list(assigned.notes)
        if gathered.without_references:
            notes.append(f"{gathered.without_references:,} pictures without a caption were left out.")
        pairs = _duplicates(good, looks, assigned.splits) if settings.duplicates else []
        splits = _by_split(good, assigned.splits, stage, folder)
        write_table(stage / PROBLEMS, ("file", "reason"), ((p.where, p.reason) for p in problems))
        _write_pairs(stage / DUPLICATES, pairs)
        counts, digest = write_splits(
            stage,
            splits,
            {record.id: look.digest for record, look in zip(good, looks, strict=True)},
            {
                "captune": __version__,
                "source": str(source),
                "format": name,
                "split": assigned.how,
                "seed": settings.seed,
                "bad": len(problems),
                "merged_entries": gathered.merged,
                "images_without_references": gathered.without_references,
                "images_in_no_split": len(good) - len(assigned.splits),
                "duplicate_pairs": len(pairs),
                "pictures_in_folder": gathered.embedded > 0,
            },
            base=folder,
        )
    unassigned = len(good) - len(assigned.splits)
    if unassigned:
        notes.append(f"{unassigned:,} pictures are in no split.")
    notes += [
        f"{n:,} pairs of near-duplicates between {names}, see {DUPLICATES}."
        for names, n in count_by_splits(pairs).items()
    ]
    return PrepareResult(
        folder=folder,
        format=name,
        why=why,
        how=assigned.how,
        splits=counts,
        problems=tuple(problems),
        duplicates=tuple(pairs),
        notes=tuple(notes),
        digest=digest,
        seconds=time.monotonic() - started,
    )


def _find(source: str, out: Path, progress: Progress) -> str:
    if source not in DOWNLOADS:
        return source
    if os.path.abspath(source) == os.path.abspath(out):
        raise UsageError(f"--out {out} is where {source} itself is kept.", f"For example: --out {source}-prepared")
    return str(download(source, Path(source), progress))


def _folder(images: str | None) -> Path | None:
    return Path(images) if images is not None else None


def _refuse_own_pictures(records: Sequence[ImageRecord], out: Path) -> None:
    inside = os.path.join(os.path.abspath(out), IMAGES, "")
    if any(record.image.startswith(inside) for record in records):
        raise UsageError(f"The source's pictures lie in {inside}, which --out {out} replaces.", "Name another --out.")


def _verified(
    records: Sequence[ImageRecord],
    settings: PrepareOptions,
    stage: Path,
    problems: list[Problem],
    progress: Progress,
) -> list[Look]:
    """Looks at the good pictures in the order of the records; the bad ones join `problems`."""
    paths = [record.image for record in records]
    looks = verify(paths, max_pixels=settings.max_pixels, workers=settings.workers, progress=progress)
    good: list[Look] = []
    bad: list[Look] = []
    for look in looks:
        (good if look.reason is None else bad).append(look)
    for look in sorted(bad, key=lambda look: look.index):
        path = paths[look.index]
        shown = path
        if path.startswith(str(stage.absolute())):  # out of an archive: it has no other place than its name
            shown = os.path.basename(path)
            os.unlink(path)
        problems.append(Problem(shown, look.reason or ""))
    return sorted(good, key=lambda look: look.index)


def _check(problems: Sequence[Problem], total: int, good: int, settings: PrepareOptions, out: Path) -> None:
    """Stop at problems as `--on-bad` says; the whole list is written beside the message."""
    if not problems or (settings.on_bad == "skip" and good):
        return
    write_table(out / PROBLEMS, ("file", "reason"), ((p.where, p.reason) for p in problems))
    lines = [f"  {problem.where}: {problem.reason}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  … and {len(problems) - _SHOWN:,} more")
    listed = "\n".join(lines)
    reasons = Counter(problem.reason for problem in problems)
    hint = "Mend or replace them, or leave them out: --on-bad skip"
    if reasons["there is no such file"] > total // 2:
        hint = "Name the folder of the pictures with --images DIR, or leave out what is missing: --on-bad skip"
    if not good:
        raise CaptuneError(
            f"None of the {total:,} pictures can be used:\n{listed}", f"All are listed in {out / PROBLEMS}."
        )
    said = f"{len(problems):,} of {total:,} pictures or rows cannot be used"
    raise CaptuneError(f"{said}:\n{listed}\nAll are listed in {out / PROBLEMS}.", hint)


def _duplicates(good: Sequence[ImageRecord], looks: Sequence[Look], splits: dict[str, str]) -> list[DuplicatePair]:
    kept = [(record, look) for record, look in zip(good, looks, strict=True) if record.id in splits]
    return find_duplicates(
        [record.id for record, _ in kept],
        [splits[record.id] for record, _ in kept],
        np.array([look.hash for _, look in kept], np.uint64),
        np.frombuffer(b"".join(look.thumb for _, look in kept), np.uint8).reshape(len(kept), -1),
        [look.digest for _, look in kept],
    )


def _write_pairs(path: Path, pairs: Sequence[DuplicatePair]) -> None:
    write_table(
        path,
        ("image_a", "split_a", "image_b", "split_b", "distance", "kind"),
        ((p.a, p.split_a, p.b, p.split_b, p.distance, "exact" if p.exact else "near") for p in pairs),
    )


def _by_split(
    good: Sequence[ImageRecord], splits: dict[str, str], stage: Path, out: Path
) -> dict[str, list[ImageRecord]]:
    """Records of each split in the order of the source, their pictures where they will be in the end."""
    here, there = str(stage.absolute()), os.path.abspath(out)
    found: dict[str, list[ImageRecord]] = {}
    for record in good:
        split = splits.get(record.id)
        if split is None:
            continue
        image = record.image
        if image.startswith(here + os.sep):
            image = there + image[len(here) :]
        found.setdefault(split, []).append(replace(record, image=image, split=split))
    return found
