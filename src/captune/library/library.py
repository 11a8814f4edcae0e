"""`captune library`: a folder of images with a memory of what they are and of every caption that they had."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file
from captune.core.options.library import FilterOptions
from captune.core.progress import SILENT, Progress
from captune.images.open import MAX_PIXELS
from captune.library.beside import read_sidecars
from captune.library.database import FILE, Database
from captune.library.fields import read_about
from captune.library.query import condition_of
from captune.library.scan import ScanReport, scan
from captune.library.search import FoundImage, by_words, listed
from captune.library.transfer import back_up, export_rows, import_rows, write_lines

OWN = ".captune"
_LIMIT = 50


@dataclass(frozen=True)
class Status:
    """How many images, captions and keywords a library has; captions by status, by who wrote them, and by flag."""

    folder: str
    images: int
    without_caption: int
    unreadable: int
    gone: int
    captions: int
    statuses: Mapping[str, int]
    writers: Mapping[str, int]
    flags: Mapping[str, int]
    keywords: int
    vectors: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in asdict(self).items()}


class Library:
    """A folder of images with its database, `.captune/library.db` in it or in the folder `own`.

    `Library("photos").add()` brings it in step with the folder; `search("two dogs")` finds images. Any number of
    threads and processes may use a library at once.
    """

    def __init__(
        self, folder: str | os.PathLike[str], own: str | os.PathLike[str] | None = None, *, create: bool = False
    ):
        """Open the library of a folder, or (`create`) begin one; raises `CaptuneError` where that is not possible."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise CaptuneError(f"There is no folder {folder}.", "Check the path; is a disk not mounted?")
        self.own = self.folder / OWN if own is None else Path(own)
        self._create = create
        self.database  # noqa: B018 - opened now, so that what is wrong with it is said now

    @cached_property
    def database(self) -> Database:
        return Database(self.own / FILE, create=self._create)

    def add(self, *, workers: int = 0, max_pixels: int = MAX_PIXELS, progress: Progress = SILENT) -> ScanReport:
        """Bring the library in step with its folder: new, changed, moved and gone images, captions beside them."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        report = scan(
            self.database, str(self.folder), read_about,
            now=now, max_pixels=max_pixels, workers=workers, progress=progress,
        )  # fmt: skip
        read_sidecars(self.database, str(self.folder), now=now, progress=progress)
        return report

    def search(self, words: str = "", *, limit: int = _LIMIT, **conditions: Any) -> list[FoundImage]:
        """Images by the words of their captions, or all; `conditions` are those of `captune search --help`."""
        condition = condition_of(FilterOptions(**conditions))
        with self.database.read() as connection:
            return (
                by_words(connection, words, condition, limit) if words.strip() else listed(connection, condition, limit)
            )

    def status(self) -> Status:
        """What the library has."""
        with self.database.read() as connection:

            def count(query: str) -> int:
                return int(connection.execute(query).fetchone()[0])

            def counts(query: str) -> dict[str, int]:
                return {str(name): int(number) for name, number in connection.execute(query)}

            here = "FROM images i WHERE i.gone IS NULL"
            captions = "FROM captions c JOIN images i ON i.id = c.image WHERE c.current AND i.gone IS NULL"
            flags: dict[str, int] = {}
            for text, number in connection.execute(f"SELECT flags, count(*) {captions} AND flags != '' GROUP BY flags"):
                for flag in text.split():
                    flags[flag] = flags.get(flag, 0) + number
            return Status(
                folder=str(self.folder),
                images=count(f"SELECT count(*) {here}"),
                without_caption=count(f"SELECT count(*) {here} AND i.id NOT IN (SELECT c.image {captions})"),
                unreadable=count(f"SELECT count(*) {here} AND problem IS NOT NULL"),
                gone=count("SELECT count(*) FROM images WHERE gone IS NOT NULL"),
                captions=count(f"SELECT count(*) {captions}"),
                statuses=counts(f"SELECT status, count(*) {captions} GROUP BY status ORDER BY status"),
                writers=counts(
                    "SELECT iif(written_by = 'person', 'person', coalesce(nullif(model, ''), 'model')), count(*) "
                    f"{captions} GROUP BY 1 ORDER BY 2 DESC"
                ),
                flags=dict(sorted(flags.items(), key=lambda item: -item[1])),
                keywords=count("SELECT count(DISTINCT keyword) FROM keywords"),
                vectors=counts(
                    "SELECT model, count(*) FROM vectors JOIN embedders ON embedders.id = embedder GROUP BY model"
                ),
            )

    def problems(self) -> list[str]:
        """What is damaged in the library; empty where nothing is."""
        return self.database.problems()

    def back_up(self) -> Path:
        """Copy the database into `backups/` beside it."""
        return back_up(self.database, self.own / "backups", datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S"))

    def export(self, out: str | os.PathLike[str]) -> None:
        """Write all of the library as JSON Lines."""
        with atomic_file(out) as file:
            write_lines(export_rows(self.database), file)

    def import_from(self, path: str | os.PathLike[str]) -> int:
        """Fill an empty library with what `export` wrote; the number of images."""
        return import_rows(self.database, Path(path))
