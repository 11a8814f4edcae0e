"""The prepared folder: what `captune prepare` leaves and every other verb reads.

    train.csv, val.csv, test.csv       image_path,caption (or image_path,question,answer): one row a reference
    train_split.jsonl, …               one line an image: id, image_path, (question,) references
    splits.json                        how it was split, counts, digest
    problems.csv, duplicates.csv       what was left out, which images are near-copies
    left_out.jsonl                     images that a person took out of all splits, as the lines of a split
    images/                            images that came out of archives

An `image_path` is relative to the folder where the image lies inside it, else absolute. The latter counts where
`captune prepare` wrote the folder on this machine (`.written-here` has the inode numbers of its files, which nobody
who sends a folder can know), else only with `--allow-outside`.
`splits.json` is written last and removed first: a folder without it is not prepared.
"""

import csv
import hashlib
import json
import os
import shlex
import shutil
import signal
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import (
    atomic_file,
    disk_error,
    is_other_process,
    read_json,
    staging_folder,
    write_json,
    write_jsonl,
)
from captune.core.files.fingerprints import contents_digest
from captune.core.files.limits import parse_json
from captune.core.files.paths import MARK, Boundary, mark_written, written_here
from captune.core.records import ImageRecord
from captune.core.text import guarded, shortened
from captune.images.duplicates import DuplicatePair

VERSION = 1
SPLITS = "splits.json"
SPLIT_SUFFIX = "_split.jsonl"
PROBLEMS = "problems.csv"
DUPLICATES = "duplicates.csv"
IMAGES = "images"
LEFT_OUT = "left_out.jsonl"
TRAIN = "train"
_FIRST = (TRAIN, "val", "test")


@dataclass(frozen=True)
class SplitCount:
    """Images of a split, and references of all of them together."""

    images: int
    references: int


@dataclass(frozen=True)
class PreparedData:
    """A prepared folder: its splits with counts, the digest of its contents, and all of `splits.json`."""

    folder: Path
    splits: dict[str, SplitCount]
    digest: str
    summary: dict[str, Any]


def read_prepared(folder: str | os.PathLike[str]) -> PreparedData:
    """The prepared folder's counts and digest; raises `CaptuneError` where there is none."""
    path = Path(folder)
    if not (path / SPLITS).is_file():
        with suppress(OSError):  # a folder that may not be written stays as it is
            undo_stopped(path)
    if not (path / SPLITS).is_file():
        if path.is_dir():
            problem, step = "is not prepared", f"captune prepare {path} --out {path}-prepared"
        else:
            problem, step = "does not exist", f"captune prepare SOURCE --out {path}"
        raise CaptuneError(f"The data folder {path} {problem} (there is no {path / SPLITS}).", f"Run: {step}")
    again = f"Run: captune prepare SOURCE --out {path}"
    try:
        summary = read_json(path / SPLITS)
    except CaptuneError as error:
        raise CaptuneError(error.message, again) from None
    try:
        version = int(summary["version"])
        counts = {
            str(name): SplitCount(int(count["unique_images"]), int(count["rows"]))
            for name, count in summary["splits"].items()
        }
        digest = str(summary["digest"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CaptuneError(f"{path / SPLITS} was not written by `captune prepare`.", again) from None
    if version != VERSION:
        raise CaptuneError(
            f"{path} was prepared by another version of captune (layout {version}, this one reads {VERSION}).",
            f"Run again: captune prepare {shlex.quote(str(summary.get('source', 'SOURCE')))} --out {path}",
        )
    return PreparedData(path, counts, digest, summary)


def read_split(folder: str | os.PathLike[str], split: str, *, allow_outside: bool = False) -> list[ImageRecord]:
    """The images of a split, in their order, with absolute paths.

    Raises `CaptuneError` for a folder that is not prepared, a broken line, or an image outside of the folder that was
    not prepared on this machine (unless `allow_outside`), `UsageError` for a split that is not there.
    """
    data = read_prepared(folder)
    if split not in data.splits:
        known = ", ".join(f"{name} ({count.images:,} images)" for name, count in data.splits.items())
        raise UsageError(f"{data.folder} has no split '{split}'.", f"It has: {known}.")
    path = data.folder / f"{split}{SPLIT_SUFFIX}"
    base = os.path.abspath(data.folder)
    boundary = Boundary([base], anywhere=allow_outside or splits_written_here(data.folder))
    records = []
    again = f"Prepare the data again: captune prepare {data.summary.get('source', 'SOURCE')} --out {data.folder}"
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = record_of(parse_json(line))
                    image = os.path.join(base, row.image)
                    if not boundary.holds(image):
                        raise _outside(path, number, boundary, row.image)
                    records.append(replace(row, image=os.path.normpath(image), split=split))
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise CaptuneError(
                        f"{path}, line {number}: expected an object with id, image_path and references (a list of "
                        "texts).",
                        again,
                    ) from None
    except FileNotFoundError:
        raise CaptuneError(f"{path} is missing.", again) from None
    except UnicodeDecodeError:
        raise CaptuneError(f"{path} is not UTF-8 text: it is damaged, or something else wrote it.", again) from None
    except OSError as error:
        raise CaptuneError(f"Cannot read {path}: {error.strerror}.", "Check its permissions and the disk.") from None
    expected = data.splits[split]
    actual = SplitCount(len({record.image for record in records}), sum(len(record.references) for record in records))
    if actual != expected:
        raise CaptuneError(
            f"{path} has {actual.images:,} images with {actual.references:,} references, and {data.folder / SPLITS} "
            f"counts {expected.images:,} with {expected.references:,}: it was cut off or edited.",
            f"{again} (edit the source rather than what was prepared).",
        )
    return records


def record_of(value: Any) -> ImageRecord:
    """The record that a line of a split states, its image as it is written there.

    Raises KeyError, TypeError or ValueError where the line states none.
    """
    if not isinstance(value["references"], list):
        raise TypeError("references are a list")
    references, question = tuple(map(str, value["references"])), str(value.get("question", ""))
    return ImageRecord(str(value["id"]), os.fspath(value["image_path"]), references, "", question)


def splits_written_here(folder: Path) -> bool:
    """Whether `captune prepare` wrote the splits of a folder where they lie, and nobody sent or copied them."""
    names = [path.name for path in folder.glob(f"*{SPLIT_SUFFIX}")]
    return bool(names) and written_here(folder, names)


def _outside(path: Path, number: int, boundary: Boundary, name: str) -> CaptuneError:
    return CaptuneError(
        f"{path}, line {number}: {shortened(name)} lies outside of {boundary.folders[0]}, which was not prepared here.",
        "A folder from elsewhere names images inside of it alone: prepare it again, or trust it with --allow-outside.",
    )


def write_splits(
    folder: Path,
    splits: Mapping[str, Sequence[ImageRecord]],
    contents: Mapping[str, str],
    facts: Mapping[str, Any],
    base: Path | None = None,
) -> tuple[dict[str, SplitCount], str]:
    """Write the CSV and JSONL file of every split, then `splits.json`.

    `contents` maps record ids to digests of their images' bytes, `facts` go into `splits.json`
    as they are; `base` is the folder the files will end up in, if that is another. The digest
    covers splits, ids, references and image bytes, not where things lie. Returns counts and digest.
    """
    base = Path(os.path.abspath(base or folder))
    digest = hashlib.sha256()
    counts, images = {}, {}
    for name in sorted(splits, key=lambda n: (_FIRST.index(n) if n in _FIRST else len(_FIRST), n)):
        records = splits[name]
        paths = [_relative(record.image, base) for record in records]
        write_jsonl(
            folder / f"{name}{SPLIT_SUFFIX}",
            (
                {"id": record.id, "image_path": path, **_question_of(record), "references": list(record.references)}
                for record, path in zip(records, paths, strict=True)
            ),
        )
        asking = any(record.question for record in records)
        header = ("image_path", "question", "answer") if asking else ("image_path", "caption")
        rows = (
            (path, record.question, text) if asking else (path, text)
            for record, path in zip(records, paths, strict=True)
            for text in record.references
        )
        write_table(folder / f"{name}.csv", header, rows)
        for record in records:
            line = [
                name,
                record.id,
                list(record.references),
                contents.get(record.id, ""),
                *_question_of(record).values(),
            ]
            digest.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
        images[name] = contents_digest(contents.get(record.id, "") for record in records)
        counts[name] = SplitCount(len(set(paths)), sum(len(record.references) for record in records))
    mark_written(folder, [f"{name}{end}" for name in splits for end in (SPLIT_SUFFIX, ".csv")])
    write_json(
        folder / SPLITS,
        {
            "version": VERSION,
            **facts,
            "splits": {n: {"rows": c.references, "unique_images": c.images} for n, c in counts.items()},
            "image_digests": images,
            "digest": f"sha256:{digest.hexdigest()}",
        },
    )
    return counts, f"sha256:{digest.hexdigest()}"


def _question_of(record: ImageRecord) -> dict[str, str]:
    return {"question": record.question} if record.question else {}


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file with quotes where they are needed and no formulas, UTF-8, lines ending in a line feed."""
    with atomic_file(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def write_duplicates(folder: Path, pairs: Iterable[DuplicatePair]) -> None:
    """Write the pairs of near-duplicates in different splits."""
    rows = ((p.a, p.split_a, p.b, p.split_b, p.distance, "exact" if p.exact else "near") for p in pairs)
    write_table(folder / DUPLICATES, ("image_a", "split_a", "image_b", "split_b", "distance", "kind"), rows)


def _relative(image: str, base: Path) -> str:
    try:
        return Path(image).relative_to(base).as_posix()
    except ValueError:
        return image


def sample_records(records: Sequence[ImageRecord], count: int, seed: int = 42) -> list[ImageRecord]:
    """`count` records (0: all) in their order, chosen by the seed alone."""
    if not 0 < count < len(records):
        return list(records)
    chosen = np.random.default_rng(seed).choice(len(records), count, replace=False)
    return [records[i] for i in sorted(chosen)]


_STAGE = ".preparing-"
# In the stage: what `out` held before, and which names are being exchanged.
_OLD, _EXCHANGE = ".old", ".exchange"
# Stages of this process: another one may have left some under the same number.
_AT_WORK: set[Path] = set()


@contextmanager
def staged(out: Path, stays: Collection[str] = ()) -> Iterator[Path]:
    """A folder to fill; when the block ends well, its contents take the place of what `out` held.

    `out` may be missing, empty, or prepared before (then files that are not captune's, and those that `stays` names,
    stay where they are); anything else raises `UsageError`. An error or Ctrl-C inside the
    block leaves `out` as it was.
    """
    old = [name for name in _old_names(out) if name not in stays]
    # A stage with a journal stays: the next start undoes what could not be undone now.
    with staging_folder(out / f"{_STAGE}{os.getpid()}", out, journal=_EXCHANGE) as stage:
        _AT_WORK.add(stage)
        try:
            yield stage
            with _signals_deferred():
                _exchange(stage, out, old)
        finally:
            _AT_WORK.discard(stage)


def is_prepared(folder: Path) -> bool:
    """Whether `captune prepare` has left its mark in the folder."""
    return (folder / SPLITS).is_file()


def _old_names(out: Path) -> list[str]:
    """What an earlier `captune prepare` left in `out`, `splits.json` first."""
    if not out.exists():
        return []
    if not out.is_dir():
        raise UsageError(f"--out {out} is a file.", "Name a folder.")
    try:
        present = sorted(entry.name for entry in out.iterdir())
    except OSError as error:
        raise disk_error(error, out) from error
    if undo_stopped(out):
        raise CaptuneError(f"Another process is writing to the data set {out}.", "Wait for it, or end it first.")
    present = sorted(entry.name for entry in out.iterdir())
    if is_prepared(out):
        summary = read_json(out / SPLITS)
        splits = summary.get("splits", {}) if isinstance(summary, dict) else {}
        names = [SPLITS, MARK, *(n for s in splits for n in (f"{s}.csv", f"{s}{SPLIT_SUFFIX}")), PROBLEMS, DUPLICATES]
        names.append(LEFT_OUT)
        if isinstance(summary, dict) and summary.get("pictures_in_folder"):
            names.append(IMAGES)
        return [name for name in names if name in present]
    if set(present) <= {PROBLEMS}:
        return present
    raise UsageError(
        f"--out {out} holds other files ({', '.join(present[:4])}{', …' if len(present) > 4 else ''}) "
        "and is not a prepared folder.",
        "Name a new or an empty folder.",
    )


def undo_stopped(out: Path) -> bool:
    """Bring back what a process that was killed had begun to replace; whether another one is at work there."""
    if not out.is_dir():
        return False
    stages = sorted(entry.name for entry in out.iterdir() if entry.name.startswith(_STAGE))
    for name in stages:
        if is_other_process(name.removeprefix(_STAGE)) or out / name in _AT_WORK:
            return True
        _undo(out / name, out)
        shutil.rmtree(out / name, ignore_errors=True)
    return False


def _exchange(stage: Path, out: Path, old: list[str]) -> None:
    new = sorted((entry.name for entry in stage.iterdir()), key=lambda name: name == SPLITS)
    blocked = [name for name in new if name not in old and (out / name).exists()]
    if blocked:
        raise UsageError(f"--out {out} holds a {blocked[0]} that captune did not write.", "Name a new folder.")
    write_json(stage / _EXCHANGE, {"old": old, "new": new})
    (stage / _OLD).mkdir()
    try:
        for name in old:
            os.rename(out / name, stage / _OLD / name)
        for name in new:
            os.rename(stage / name, out / name)
    except OSError as error:
        _undo(stage, out)
        raise disk_error(error, out) from error
    (stage / _EXCHANGE).unlink()


def _undo(stage: Path, out: Path) -> None:
    """Take back an exchange that did not come to its end, after a kill as well; after a kill in here too."""
    if not (stage / _EXCHANGE).is_file():
        return
    names = read_json(stage / _EXCHANGE)
    if any((stage / name).exists() for name in names["new"]):  # else all of the new is in its place
        for name in names["new"]:
            if not (stage / name).exists() and (name not in names["old"] or (stage / _OLD / name).exists()):
                os.rename(out / name, stage / name)
        for name in names["old"]:
            if (stage / _OLD / name).exists():
                os.rename(stage / _OLD / name, out / name)
    (stage / _EXCHANGE).unlink()


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before: dict[int, Any] = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)
