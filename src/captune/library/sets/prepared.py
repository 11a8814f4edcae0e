"""A prepared folder as a library: its references are captions, its splits can be changed, and both go back."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captune import __version__
from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.files import write_jsonl
from captune.core.files.limits import parse_json
from captune.core.files.paths import MARK, Boundary
from captune.core.records import Caption, ImageRecord
from captune.datasets.prepared import (
    DUPLICATES,
    IMAGES,
    LEFT_OUT,
    PROBLEMS,
    SPLIT_SUFFIX,
    SPLITS,
    PreparedData,
    read_prepared,
    read_split,
    record_of,
    splits_written_here,
    staged,
    write_duplicates,
    write_splits,
)
from captune.images.duplicates import DuplicatePair, find_duplicates
from captune.images.verify import THUMB_BYTES
from captune.library.database import Database
from captune.library.sets.archived import ArchivedImages
from captune.library.sets.corrected import KnownImage, known_images, merged
from captune.library.sets.data_set import Kind, SetImage, WriteBackReport, path_in
from captune.library.sets.former import copy_former

_WRITTEN_ANEW = ("version", "splits", "image_digests", "digest")
_NAN = float("nan")


class PreparedSet:
    """The prepared folder `folder`; `trusted`: its images may lie anywhere, wherever it was prepared."""

    kind: Kind = "data set"
    archives: ArchivedImages | None = None

    def __init__(self, folder: Path, *, trusted: bool = False) -> None:
        self.folder, self._trusted = folder, trusted

    def may_show(self, file: str) -> bool:
        """Whether an image may be read; see `DataSet.may_show`."""
        return self._boundary.holds(file)

    @cached_property
    def _boundary(self) -> Boundary:
        anywhere = self._trusted or splits_written_here(self.folder)
        return Boundary([os.path.abspath(self.folder)], anywhere=anywhere)

    def images(self) -> Iterator[str]:
        """The paths of all images, those in no split too; raises `CaptuneError` for a folder that cannot be used."""
        for file in self.files():
            for record in self._records(file):
                yield path_in(self.folder, record.image)

    def files(self) -> list[str]:
        """The files of the splits, and of what was left out of all."""
        names = [f"{split}{SPLIT_SUFFIX}" for split in read_prepared(self.folder).splits]
        return [*names, LEFT_OUT] if (self.folder / LEFT_OUT).is_file() else names

    def read(self, file: str) -> Iterator[SetImage]:
        """The images of a split with their references."""
        for record in self._records(file):
            path = path_in(self.folder, record.image)
            captions = tuple(Caption(text, _NAN) for text in record.references)
            yield SetImage(path, CaptionRow(path, captions, "ok", None, ""), record.split or "")

    def _records(self, file: str) -> list[ImageRecord]:
        if file == LEFT_OUT:
            return self._left_out()
        records = read_split(self.folder, file.removesuffix(SPLIT_SUFFIX), allow_outside=self._trusted)
        if any(record.question for record in records):
            raise self._of_questions()
        return records

    def check(self) -> None:
        """Raise `CaptuneError` for a data set of questions, as its first lines tell; other errors are of reading it."""
        for split in read_prepared(self.folder).splits:
            with suppress(OSError, ValueError, KeyError, TypeError):
                with open(self.folder / f"{split}{SPLIT_SUFFIX}", encoding="utf-8") as file:
                    record = record_of(parse_json(file.readline()))
                if record.question:
                    raise self._of_questions()

    def _of_questions(self) -> CaptuneError:
        source = shlex.quote(str(read_prepared(self.folder).summary.get("source", "SOURCE")))
        return CaptuneError(
            f"{self.folder} has questions with answers, and here captions alone are edited.",
            f"Correct the answers in {source}, and prepare it again: captune prepare {source} --out {self.folder}",
        )

    def _left_out(self) -> list[ImageRecord]:
        path, base = self.folder / LEFT_OUT, os.path.abspath(self.folder)
        if not path.is_file():
            return []
        records = []
        try:
            for line in path.read_text("utf-8").splitlines():
                value = parse_json(line)
                record = record_of(value)
                image = os.path.normpath(os.path.join(base, record.image))
                if self.may_show(image):
                    records.append(replace(record, image=image, split=str(value["split"])))
        except (ValueError, KeyError, TypeError) as error:
            raise CaptuneError(f"{path} is damaged: {error}.", "Remove it: the images in it are in no split.") from None
        return records

    def write(self, database: Database, former: Path) -> WriteBackReport:
        """Write references and splits, with copies of the files as they were in `former`; see `DataSet.write`."""
        data = read_prepared(self.folder)
        before = [record for split in data.splits for record in self._records(f"{split}{SPLIT_SUFFIX}")]
        after = _Corrected(database, self.folder, before, self._left_out())
        if not after.changed:
            return WriteBackReport(self.kind, 0, digest=data.digest)
        after.check()
        copy_former(self.folder, self._replaced(), former)
        trusted = splits_written_here(self.folder)
        with staged(self.folder, stays=(IMAGES, PROBLEMS)) as stage:
            pairs = _duplicates(database, self.folder, after)
            write_duplicates(stage, pairs)
            facts = _facts(data) | {"duplicate_pairs": len(pairs)}
            _, digest = write_splits(stage, after.splits, after.contents, facts, base=self.folder)
            if after.left_out:
                write_jsonl(stage / LEFT_OUT, (_line(record, self.folder) for record in after.left_out))
            if not trusted:
                (stage / MARK).unlink()
        files = tuple(f"{split}{SPLIT_SUFFIX}" for split in after.splits)
        return WriteBackReport(self.kind, after.changed, files, str(former), digest, len(after.left_out))

    def _replaced(self) -> list[str]:
        """The files that are written anew."""
        names = [*self.files(), SPLITS, DUPLICATES, *(f"{split}.csv" for split in read_prepared(self.folder).splits)]
        return [name for name in names if (self.folder / name).is_file()]


class _Corrected:
    """The records of a data set after what people changed in its library; `changed` counts images.

    `splits` are in the order in which the records stood, `contents` the digests of images by record.
    """

    def __init__(
        self, database: Database, folder: Path, in_splits: Sequence[ImageRecord], left_out: Sequence[ImageRecord]
    ) -> None:
        by_image: dict[str, list[ImageRecord]] = {}
        for record in (*in_splits, *left_out):
            by_image.setdefault(path_in(folder, record.image), []).append(record)
        stood = {record.id for record in in_splits}
        found: dict[str, tuple[ImageRecord, bool]] = {}
        rank: dict[str, int] = {}
        self.contents: dict[str, str] = {}
        self.changed = 0
        with database.read() as connection:
            for known in known_images(connection, by_image):
                for path, image in known.items():
                    own = by_image[path]
                    new = _records_of(image, own)
                    self.changed += new != [(record, record.id in stood) for record in own]
                    found |= {record.id: (record, stays) for record, stays in new}
                    self.contents |= {record.id: image.digest for record in own}
                    rank |= {record.id: image.rank for record in own}
        self.left_out: list[ImageRecord] = []
        standing: dict[str, list[ImageRecord]] = {}
        come: dict[str, list[ImageRecord]] = {}
        for former in (*in_splits, *left_out):
            record, stays = found.get(former.id, (former, former.id in stood))
            if not stays:
                self.left_out.append(record)
                continue
            target = standing if former.id in stood and former.split == record.split else come
            target.setdefault(record.split or "", []).append(record)
        self.splits = {
            split: merged(standing.get(split, ()), come.get(split, ()), lambda record: rank.get(record.id, 0))
            for split in dict.fromkeys((*standing, *come))
        }

    def check(self) -> None:
        """Raise `CaptuneError` where an image of a split cannot be read, or none is left: no data set is so."""
        lost = [record for each in self.splits.values() for record in each if not self.contents.get(record.id)]
        if lost:
            raise CaptuneError(
                f"{len(lost):,} image{'s' * (len(lost) > 1)} of the data set cannot be read: {lost[0].image}.",
                "Bring them back (is a disk not mounted?), or take them out of their splits. Nothing was written.",
            )
        if not self.splits:
            raise CaptuneError("No image would be left in any split.", "Approve captions first. Nothing was written.")


def _records_of(image: KnownImage, records: Sequence[ImageRecord]) -> list[tuple[ImageRecord, bool]]:
    """The records of an image as they are to stand, and whether they stay in a split: with an approved caption alone.

    What is left out goes with the captions that stood there, so that it can come back.
    """
    placed = image.placed([record.references for record in records])
    found = []
    for record, captions in zip(records, placed, strict=True):
        texts = tuple(each.text for each in captions if each.status == "approved")
        split = image.split if image.split is not None else record.split or ""
        found.append((replace(record, references=texts or record.references, split=split), bool(texts and split)))
    return found


def _duplicates(database: Database, folder: Path, after: _Corrected) -> list[DuplicatePair]:
    """Near-duplicates in different splits, by what the library knows of the images; one record of each image counts."""
    records = {path_in(folder, record.image): record for each in after.splits.values() for record in reversed(each)}
    query = "SELECT path, digest, hash, thumb FROM images WHERE gone IS NULL AND hash IS NOT NULL"
    with database.read() as connection:
        rows = [row for row in connection.execute(query) if row["path"] in records]
    own = [records[row["path"]] for row in rows]
    return find_duplicates(
        [record.id for record in own],
        [record.split or "" for record in own],
        np.array([row["hash"] for row in rows], np.int64).view(np.uint64),
        np.frombuffer(b"".join(row["thumb"] for row in rows), np.uint8).reshape(len(rows), THUMB_BYTES),
        [row["digest"] for row in rows],
    )


def _facts(data: PreparedData) -> dict[str, Any]:
    """What `splits.json` says besides, with the fingerprint of what stood there before."""
    edited = {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "captune": __version__, "before": data.digest,
        "prepared": data.summary.get("edited", {}).get("prepared", data.digest),
    }  # fmt: skip
    return {**{name: value for name, value in data.summary.items() if name not in _WRITTEN_ANEW}, "edited": edited}


def _line(record: ImageRecord, folder: Path) -> dict[str, Any]:
    path = path_in(folder, record.image)
    return {"id": record.id, "image_path": path, "split": record.split, "references": list(record.references)}
