"""`captune prepare`: a source of images with captions becomes verified splits."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captune import __version__
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import PrepareOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.core.wording import counted
from captune.datasets.downloads import DOWNLOADS, download
from captune.datasets.formats import find_format, read_source
from captune.datasets.merge import MergedRecords, Problem, merge_records
from captune.datasets.prepared import (
    DUPLICATES,
    IMAGES,
    PROBLEMS,
    SplitCount,
    staged,
    write_duplicates,
    write_splits,
    write_table,
)
from captune.datasets.splits import assign, official_split
from captune.datasets.tables.rows import NothingUsable, listed
from captune.images.duplicates import DuplicatePair, count_by_splits, find_duplicates
from captune.images.verify import THUMB_BYTES, verify


@dataclass(frozen=True)
class PrepareResult:
    """What `prepare` made.

    `format` and `why` say how the source was read, `how` how it was split; `problems` are the
    images and rows that were left out, `duplicates` near-copies across splits, `questions`
    how many are asked.
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
    questions: int = 0


def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> PrepareResult:
    """Read a data set, open every image once, split it and write the prepared folder `out`.

    `source` is a folder or file, `flickr8k`, `flickr30k` or `coco` (downloaded where no folder
    of that name exists), or `hf:org/name`. `options` are those of `captune prepare`: format,
    split, seed, on_bad, images, max_pixels, duplicates, workers, allow_outside. Raises `CaptuneError` for a
    source that cannot be used and, with on_bad="fail", for the first bad image or row.
    An `out` that was prepared before is replaced once everything is done.
    """
    started = time.monotonic()
    resolved = resolve("prepare", file=config, environment=environment, flags=options, sets=sets).values
    settings, folder = resolved.prepare, Path(out)
    problems: list[Problem] = []
    with staged(folder) as stage:
        path = _find(os.fspath(source), folder, progress)
        name, why, merged = _read(
            path, settings, stage, folder, problems, progress, allow_outside=resolved.tables.allow_outside
        )
        verified = _verify(merged.records, settings, stage, problems, progress)
        _check(problems, len(merged.records), len(verified.records), settings, folder)
        assigned = assign(verified.records, settings.split, settings.seed, lambda split: official_split(split, path))
        pairs = _duplicates(verified, assigned.splits) if settings.duplicates else []
        _list_problems(problems, stage)
        write_duplicates(stage, pairs)
        unassigned = len(verified.records) - len(assigned.splits)
        counts, digest = write_splits(
            stage,
            _by_split(verified.records, assigned.splits, stage, folder),
            dict(zip((record.id for record in verified.records), verified.digests, strict=True)),
            {
                "captune": __version__,
                "source": str(source),
                "format": name,
                "split": assigned.how,
                "seed": settings.seed,
                "bad": len(problems),
                "merged_entries": merged.merged,
                "images_without_references": merged.without_references,
                "rejected_captions": merged.rejected,
                "images_in_no_split": unassigned,
                "duplicate_pairs": len(pairs),
                "pictures_in_folder": merged.embedded > 0,
            },
            base=folder,
        )
    notes = [*assigned.notes, *_notes(merged, unassigned, pairs, folder)]
    seconds = time.monotonic() - started
    questions = sum(bool(record.question) for record in verified.records)
    return PrepareResult(
        folder, name, why, assigned.how, counts, tuple(problems), tuple(pairs), tuple(notes), digest, seconds, questions
    )


@dataclass(frozen=True)
class _Verified:
    """Records of good images in the order of the source; hashes (n,), thumbnails (n, 192), digests of images."""

    records: list[ImageRecord]
    hashes: np.ndarray
    thumbs: np.ndarray
    digests: list[str]


def _find(source: str, out: Path, progress: Progress) -> str:
    if source not in DOWNLOADS:
        return source
    if os.path.abspath(source) == os.path.abspath(out):
        raise UsageError(f"--out {out} is where {source} itself is kept.", f"For example: --out {source}-prepared")
    return str(download(source, Path(source), progress))


def _read(
    path: str,
    settings: PrepareOptions,
    stage: Path,
    out: Path,
    problems: list[Problem],
    progress: Progress,
    *,
    allow_outside: bool,
) -> tuple[str, str, MergedRecords]:
    """The source's format, the reason for it, and its records; images out of archives are written to `stage`."""
    images = Path(settings.images) if settings.images is not None else None
    name, why = (settings.format, "as told") if settings.format else find_format(path, images)
    _, rows = read_source(path, name, images, problems, allow_outside=allow_outside)
    with _problems_listed(problems, out):
        merged = merge_records(rows, stage / IMAGES, problems, one_split=settings.split == ("auto",), progress=progress)
    if not merged.records:
        reason = f": {_rejected(merged.rejected)}" if merged.rejected else "."
        raise CaptuneError(f"{path} has no image with a caption{reason}", "Is this the right folder?")
    inside = os.path.join(os.path.abspath(out), IMAGES, "")
    if any(record.image.startswith(inside) for record in merged.records):
        raise UsageError(f"The source's images lie in {inside}, which --out {out} replaces.", "Name another --out.")
    return name, why, merged


def _verify(
    records: Sequence[ImageRecord], settings: PrepareOptions, stage: Path, problems: list[Problem], progress: Progress
) -> _Verified:
    """Open every image once; the bad ones join `problems`."""
    paths = list(dict.fromkeys(record.image for record in records))
    hashes = np.zeros(len(paths), np.uint64)
    thumbs = np.zeros((len(paths), THUMB_BYTES), np.uint8)
    digests = [""] * len(paths)
    bad: dict[int, str] = {}
    for check in verify(paths, max_pixels=settings.max_pixels, workers=settings.workers, progress=progress):
        if check.reason is not None:
            bad[check.index] = check.reason
            continue
        hashes[check.index] = check.hash
        thumbs[check.index] = np.frombuffer(check.thumb, np.uint8)
        digests[check.index] = check.digest
    here = str(stage.absolute()) + os.sep
    for index in sorted(bad):
        shown = paths[index]
        if shown.startswith(here):  # out of an archive: it has no other place than its name
            os.unlink(shown)
            shown = os.path.basename(shown)
        problems.append(Problem(shown, bad[index]))
    place = {path: index for index, path in enumerate(paths) if index not in bad}
    good = [record for record in records if record.image in place]
    where = [place[record.image] for record in good]
    return _Verified(good, hashes[where], thumbs[where], [digests[i] for i in where])


@contextmanager
def _problems_listed(problems: Sequence[Problem], out: Path) -> Iterator[None]:
    """A source of which nothing can be used leaves the list of its problems."""
    try:
        yield
    except NothingUsable as error:
        if not problems:
            raise
        _list_problems(problems, out)
        raise CaptuneError(error.message, f"All are listed in {out / PROBLEMS}. {error.hint}") from None


def _notes(merged: MergedRecords, unassigned: int, pairs: Sequence[DuplicatePair], out: Path) -> Iterator[str]:
    """What a user should know of what was read and split."""
    if merged.renamed:
        named, actual, count = merged.renamed
        yield f"Called otherwise than the source says: {counted(count, 'image')}, such as {actual} for {named}."
    if merged.rejected:
        yield _rejected(merged.rejected)
    if merged.without_references:
        yield f"Left out: {counted(merged.without_references, 'image')} without a caption."
    if unassigned:
        yield f"In no split: {counted(unassigned, 'image')}."
    for names, count in count_by_splits(pairs).items():
        yield f"{counted(count, 'pair')} of near-duplicates between {names}, see {out / DUPLICATES}."


def _rejected(count: int) -> str:
    return f"Left out: {counted(count, 'caption')} that the source marks as rejected or ready-made."


def _list_problems(problems: Sequence[Problem], out: Path) -> None:
    write_table(out / PROBLEMS, ("file", "reason"), ((p.where, p.reason) for p in problems))


def _check(problems: Sequence[Problem], total: int, good: int, settings: PrepareOptions, out: Path) -> None:
    """Stop at problems as `--on-bad` says; the whole list is written beside the message."""
    if not problems or (settings.on_bad == "skip" and good):
        return
    _list_problems(problems, out)
    shown = listed(problems)
    reasons = Counter(problem.reason for problem in problems)
    hint = "Mend or replace them, or leave them out: --on-bad skip"
    if reasons["there is no such file"] > total // 2:
        hint = "Name the folder of the images with --images DIR, or leave out what is missing: --on-bad skip"
    if not good:
        raise CaptuneError(
            f"None of the {total:,} images can be used:\n{shown}", f"All are listed in {out / PROBLEMS}."
        )
    summary = f"{len(problems):,} of {total:,} images or rows cannot be used"
    raise CaptuneError(f"{summary}:\n{shown}\nAll are listed in {out / PROBLEMS}.", hint)


def _duplicates(verified: _Verified, splits: dict[str, str]) -> list[DuplicatePair]:
    firsts = {record.image: index for index, record in reversed(list(enumerate(verified.records)))}
    indices = sorted(index for index in firsts.values() if verified.records[index].id in splits)
    ids = [verified.records[index].id for index in indices]
    return find_duplicates(
        ids,
        [splits[id] for id in ids],
        verified.hashes[indices],
        verified.thumbs[indices],
        [verified.digests[index] for index in indices],
    )


def _by_split(
    good: Sequence[ImageRecord], splits: dict[str, str], stage: Path, out: Path
) -> dict[str, list[ImageRecord]]:
    """Records of each split in the order of the source, their images where they will be in the end."""
    here, there = str(stage.absolute()), os.path.abspath(out)
    by_split: dict[str, list[ImageRecord]] = {}
    for record in good:
        split = splits.get(record.id)
        if split is None:
            continue
        image = record.image
        if image.startswith(here + os.sep):
            image = there + image[len(here) :]
        by_split.setdefault(split, []).append(replace(record, image=image, split=split))
    return by_split
