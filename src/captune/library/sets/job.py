"""The folder of a job as a library: a model's captions are drafts, and corrections go into the rows of its shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from captune.captions.provenance import A_PERSONS, Provenance
from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, sync_folder
from captune.core.files.locks import Locked
from captune.core.files.paths import STEP, Boundary, written_here
from captune.core.records import Caption
from captune.core.stores import JOB, REPORT, SHARD_LIST
from captune.core.stores.files import is_remote
from captune.core.stores.local import LocalStore
from captune.datasets.sources.hub import HUB
from captune.datasets.sources.listing import FILES
from captune.jobs.manifest import Manifest, ShardList
from captune.jobs.shards import PLAIN, SHARD_FORMATS, shard_numbers
from captune.library.database import Database
from captune.library.sets.archived import ArchivedImages
from captune.library.sets.corrected import KnownCaption, known_images
from captune.library.sets.data_set import Kind, SetImage, WriteBackReport, path_in
from captune.library.sets.former import copy_former

_NAN = float("nan")
REJECTED = "a person rejected its caption"


class JobSet:
    """The job in `folder`, whose images lie where it found them, or in `images`.

    `trusted`: they may lie anywhere, wherever the job was run.
    """

    kind: Kind = "job"

    def __init__(self, folder: Path, images: Path | None = None, *, trusted: bool = False) -> None:
        self.folder, self._images, self._trusted = folder, images, trusted
        self._store = LocalStore(str(folder))
        self._manifest = Manifest.read(self._store)
        self._format = SHARD_FORMATS.get(str(self._manifest.options.get("caption.format")), PLAIN)

    def may_show(self, file: str) -> bool:
        """Whether an image may be read; see `DataSet.may_show`."""
        whole = os.path.abspath(file)
        return self._boundary.holds(file) or whole in self._listed[0] or whole.startswith(self._listed[1])

    @cached_property
    def _listed(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """The images that the job found where it was run here: files, and what paths in its archives begin with."""
        if not written_here(self.folder / JOB, [os.path.basename(SHARD_LIST)]):
            return frozenset(), ()
        files = frozenset(self._file(name) for shard in self._shards for name in shard.names)
        archives = {self._file(shard.location) for shard in self._shards if shard.kind != FILES}
        return files, tuple(f"{archive}{sign}" for archive in archives for sign in (os.sep, "#"))

    @cached_property
    def archives(self) -> ArchivedImages:
        """The archives of the job, where it found them; what their tables name has its limits, if it was run here."""
        here = self._trusted or written_here(self.folder / JOB, [os.path.basename(SHARD_LIST)])
        found = []
        for shard in self._shards:
            if shard.kind != FILES:
                archive = self._file(shard.location)
                away = is_remote(shard.location) or shard.location.startswith(HUB)
                inside = shard.inside if here else ""
                found.append((archive, shard if away else replace(shard, location=archive, inside=inside)))
        return ArchivedImages(found)

    @cached_property
    def _shards(self) -> ShardList:
        return ShardList.read(self._store, self._manifest.shards)

    @property
    def is_among_images(self) -> bool:
        """Whether the job lies in the folder of its images, which is an ordinary library."""
        names = next((shard.names for shard in self._shards if shard.kind == FILES), ())
        return any(not os.path.isabs(path_in(self.folder, self._file(name))) for name in names[:1])

    @cached_property
    def _boundary(self) -> Boundary:
        return Boundary([self._images or self.folder], anywhere=self._trusted)

    def images(self) -> Iterator[str]:
        """The paths of the images of all written shards; raises `CaptuneError` for one that may not be named."""
        for file in self.files():
            for each in self.read(file):
                yield each.path

    def files(self) -> list[str]:
        """The shards that are written."""
        return [name for name in self._store.names() if shard_numbers([name], self._format.suffix)]

    def read(self, file: str) -> Iterator[SetImage]:
        """The rows of a shard with the paths of their images."""
        for row in self._rows(file):
            yield SetImage(self._path(row.image), row)

    def _rows(self, file: str) -> list[CaptionRow]:
        return list(self._format.decode(self._store.read(file), file))

    def _path(self, name: str) -> str:
        file = self._file(name)
        if not self.may_show(file):
            raise CaptuneError(
                f"{name} lies outside of {self._boundary.folders[0]}, and the job was not run here.", f"{STEP}."
            )
        return path_in(self.folder, file)

    def _file(self, name: str) -> str:
        return os.path.abspath(os.path.join(self._images or self._manifest.inputs.folder or self.folder, name))

    def write(self, database: Database, former: Path) -> WriteBackReport:
        """Write corrected captions into the rows of the shards; see `DataSet.write`.

        A shard that was changed is known as a person's from then on: nothing throws it away unasked. Where files were
        made of the shards, the command of the job makes them anew.
        """
        with ExitStack() as locks:
            try:
                self._lock(locks)
            except Locked as locked:
                raise CaptuneError(
                    f"A run is at work on the job: {locked.message}",
                    "All is safe in the library. Write it into the job when the run has ended.",
                ) from None
            changed, images = {}, 0
            for file in self.files():
                rows = self._rows(file)
                new = self._corrected(database, rows)
                differ = sum(one is not other for one, other in zip(rows, new, strict=True))
                if differ:
                    changed[file] = new
                    images += differ
            if not changed:
                return WriteBackReport(self.kind, 0)
            copy_former(self.folder, changed, former)
            self._store.delete(REPORT)  # first: what is made of the shards is out of step with them from now on
            for file, rows in changed.items():
                self._publish(file, rows)
        return WriteBackReport(self.kind, images, tuple(changed), str(former))

    def _lock(self, locks: ExitStack) -> None:
        """Keep runs out, of whatever parts."""
        own = f"{JOB}/part-1-of-1.lock"
        locks.enter_context(self._store.lock(own))
        for name in self._store.names():
            if name.startswith(f"{JOB}/part-") and name != own:
                locks.enter_context(self._store.lock(name))

    def _publish(self, file: str, rows: list[CaptionRow]) -> None:
        noted = any(row.provenance is not None for row in rows)
        fields = {name: "" for row in rows for caption in row.captions for name in caption.fields or ()}
        if fields and self._format.suffix == "parquet":
            raise CaptuneError(
                f"{self.folder / file}: captions with fields in Parquet cannot be written back.",
                "Have the job write JSON Lines: --format jsonl. All is safe in the library.",
            )
        with atomic_file(self.folder / file, "wb") as out:
            out.write(self._format.encode(rows, noted, fields))
        sync_folder(self.folder)

    def _corrected(self, database: Database, rows: list[CaptionRow]) -> list[CaptionRow]:
        """The rows after what people changed; one that nobody changed is the same object."""
        by_path: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            by_path.setdefault(self._path(row.image), []).append(number)
        new = list(rows)
        with database.read() as connection:
            for known in known_images(connection, by_path):
                for path, image in known.items():
                    own = by_path[path]
                    placed = image.placed([[each.text for each in rows[number].captions] for number in own])
                    for number, captions in zip(own, placed, strict=True):
                        new[number] = self._row(rows[number], captions)
        return new

    def _row(self, row: CaptionRow, captions: list[KnownCaption]) -> CaptionRow:
        """A row with the captions that stand now, approved ones first; without any it has the reason."""
        standing = [each for each in captions if each.status != "rejected"]
        standing.sort(key=lambda each: each.status != "approved")
        before = [caption.text for caption in row.captions]
        texts = [each.text for each in standing]
        approved = bool(standing) and standing[0].status == "approved"
        if texts == before:
            # Somebody looked at it: nothing is odd about it any more.
            return replace(row, flags=()) if approved and row.flags else row
        if not texts:
            return replace(row, captions=(), status="error", error=REJECTED, flags=())
        known = {caption.text: caption for caption in row.captions}
        found = tuple(known.get(text) or Caption(text, _NAN) for text in texts)
        flags = row.flags if before[:1] == texts[:1] and not approved else ()
        provenance = row.provenance if row.provenance is not None else self._provenance(standing)
        return replace(row, captions=found, status="ok", error=None, flags=flags, provenance=provenance)

    def _provenance(self, standing: list[KnownCaption]) -> Provenance:
        """Of a row that has none: what a person wrote is a person's, the rest the job's model's."""
        models = [Caption(each.text, _NAN) for each in standing if each.written_by == "model"]
        job = self._manifest
        noted = Provenance("model", job.model, job.digest, date=job.started, captune=job.captune)
        return noted.of(models) if models else A_PERSONS
