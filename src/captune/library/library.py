"""`captune library`: a folder of images with a memory of what they are and of every caption that they had."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import atomic_file
from captune.core.files.locks import lock_file
from captune.core.options import DEFAULT_MATCHER, DEFAULT_MODEL, WhereOptions
from captune.core.progress import SILENT, Progress
from captune.core.verbs import EXPORT_LIBRARY, WRITE_LIBRARY
from captune.images.open import MAX_PIXELS
from captune.library.beside import read_sidecars
from captune.library.database import BACKUPS, FILE, OWN, Database, now
from captune.library.drafts import DraftReport, write_drafts
from captune.library.duplicates import duplicate_groups
from captune.library.export import export_captions, format_of
from captune.library.fields import read_about
from captune.library.filed import PERSON, FiledReport, add_filed
from captune.library.found import DuplicateGroups, FoundImages
from captune.library.meaning import Embedder, embedder_of, stored_vectors
from captune.library.query import condition_of
from captune.library.repair import Repair, repair
from captune.library.scan import ScanReport, scan
from captune.library.search import by_words, ids_of, listed_images, with_captions
from captune.library.sets.data_set import WriteBackReport, read_set, without_captions, write_set
from captune.library.sets.opening import open_set
from captune.library.transfer import back_up, check_place, export_rows, import_rows, write_lines
from captune.library.unknown import unknown_names
from captune.library.vectors import damaged_vectors, forget_vectors, joined_by_rank
from captune.library.write import WriteReport, write_out

FORMER = "former"
# So many images of each way of searching are joined.
_CANDIDATES = 1000
# Status, writer, flags and number of captions.
_CAPTIONS_OF_EACH_KIND = """
SELECT status, iif(written_by = 'person', 'person', coalesce(nullif(model, ''), 'model')) AS writer, flags, count(*)
FROM captions WHERE current AND image NOT IN (SELECT id FROM images WHERE gone IS NOT NULL) GROUP BY 1, 2, 3
"""


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
        self,
        folder: str | os.PathLike[str],
        own: str | os.PathLike[str] | None = None,
        *,
        create: bool = False,
        images: str | os.PathLike[str] | None = None,
        allow_outside: bool = False,
    ):
        """Open the library of a folder, or (`create`) begin one; raises `CaptuneError` where that is not possible.

        Of a data set or a job that was not made here, the images have to lie in its folder, or in `images`, unless
        `allow_outside`.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            if self.folder.exists():
                raise CaptuneError(f"{folder} is no folder.", f"A library is of a folder: {self.folder.parent}")
            raise CaptuneError(f"There is no folder {folder}.", "Check the path; is a disk not mounted?")
        self.own = self.folder / OWN if own is None else Path(own)
        self._create = create
        self.data_set = open_set(self.folder, images, allow_outside=allow_outside)
        self._embedders: dict[str, Embedder] = {}
        self.database  # noqa: B018 - opened now, so that what is wrong with it is said now

    @cached_property
    def database(self) -> Database:
        return Database(self.own / FILE, create=self._create)

    def add(self, *, workers: int = 0, max_pixels: int = MAX_PIXELS, progress: Progress = SILENT) -> ScanReport:
        """Bring the library in step with its folder: new, changed, moved and gone images, captions beside them."""
        time = now()
        if self.data_set is not None:
            report = scan(
                self.database, os.path.abspath(self.folder), lambda *image: without_captions(read_about(*image)),
                now=time, max_pixels=max_pixels, workers=workers, listed=self.data_set.images,
                archives=self.data_set.archives, progress=progress,
            )  # fmt: skip
            read_set(self.database, self.data_set, now=time, progress=progress)
            return report
        report = scan(
            self.database, str(self.folder), read_about,
            now=time, max_pixels=max_pixels, workers=workers, progress=progress,
        )  # fmt: skip
        read_sidecars(self.database, str(self.folder), now=time, progress=progress)
        return report

    def write_back(self, *, who: str = PERSON, progress: Progress = SILENT) -> WriteBackReport:
        """Write what people changed into the files of the data set or the job that the library is of.

        These are read again first: others may have written to them. The former files are copied into `former/` among
        the library's own. Raises `CaptuneError` where the library is of a folder of images, or nothing can be written.
        """
        if self.data_set is None:
            raise CaptuneError(f"{self.folder} is no data set and no job.", "Export it: captune library export")
        with lock_file(self.own / "write.lock"):
            self.add(progress=progress)
            return write_set(self.database, self.data_set, self.own / FORMER, who=who, now=now(), progress=progress)

    def add_captions(
        self, file: str | os.PathLike[str], *, written_by: str = PERSON, progress: Progress = SILENT
    ) -> FiledReport:
        """Take over the captions of a file, a job's folder or a data set; see `captune library add --captions`.

        `written_by` says who wrote those of which the file does not say it: "person", or a model's name.
        """
        path = os.fspath(file)
        return add_filed(self.database, str(self.folder), path, written_by=written_by, now=now(), progress=progress)

    def caption(self, model: str = DEFAULT_MODEL, *, progress: Progress = SILENT, **options: Any) -> DraftReport:
        """A model captions images without a caption, as drafts; options are those of `captune library caption`."""
        return write_drafts(self.database, str(self.folder), model, progress=progress, **options)

    def write(
        self, *, config: str | os.PathLike[str] | Resolved | None = None, progress: Progress = SILENT, **options: Any
    ) -> WriteReport:
        """Write captions into or beside the images, for other programs; options are those of `captune library write`.

        What somebody changed there since the library read it stays as it is, and is named in the report.
        """
        values = resolve(WRITE_LIBRARY, file=config, flags=options).values
        return write_out(self.database, str(self.folder), values.write, values.filter, progress)

    def embed(
        self, model: str = DEFAULT_MATCHER, *, run_on: WhereOptions | None = None, progress: Progress = SILENT
    ) -> dict[str, str]:
        """Give every image a vector that has none of `model` yet; the reasons for those that could not be read."""
        return self.embedder(model, run_on=run_on, progress=progress).add_missing(self.folder, progress)

    def embedder(
        self, model: str | None = None, *, run_on: WhereOptions | None = None, progress: Progress = SILENT
    ) -> Embedder:
        """The matcher whose vectors the library has, loaded once."""
        name = model or embedder_of(self.database)
        if name not in self._embedders:
            self._embedders[name] = Embedder(self.database, name, run_on or WhereOptions(), progress)
        return self._embedders[name]

    def search(
        self,
        words: str = "",
        *,
        like: Any = None,
        run_on: WhereOptions | None = None,
        progress: Progress = SILENT,
        **options: Any,
    ) -> FoundImages:
        """Images by the words of their captions, by what they show (`mode` meaning), or both; or all of them.

        `like` is an image that those which are looked for resemble: any image, or the number of one of the library
        (`FoundImage.image`), which needs no model. `options` are those of `captune search --help`.
        """
        values = resolve("search", flags=options).values
        mode, limit = values.search.mode, values.search.limit
        condition = condition_of(values.filter)
        if like is None and (mode == "words" or not words.strip()):
            with self.database.read() as connection:
                if words.strip():
                    return FoundImages(by_words(connection, words, condition, limit), self.folder)
                return FoundImages(listed_images(connection, condition, limit), self.folder)
        if isinstance(like, int):
            file = stored_vectors(self.database)
            vector = file.vector_of(like)
        else:
            embedder = self.embedder(run_on=run_on, progress=progress)
            file = embedder.file
            vector = embedder.vector_of_image(like) if like is not None else embedder.vectors_of([words])[0]
        count = max(_CANDIDATES, 20 * limit) if limit else sys.maxsize
        with self.database.read() as connection:
            among = ids_of(connection, condition) if condition.clauses else None
            images, cosines = file.nearest(vector, count, among)
            near = dict(zip(images.tolist(), cosines.tolist(), strict=True))
            if mode == "both" and words.strip():
                by_text = [found.image for found in by_words(connection, words, condition, _CANDIDATES if limit else 0)]
                joined = joined_by_rank([by_text, [*near][: _CANDIDATES if limit else None]])
            else:
                joined = list(near.items())
            scores = [(image, score, near.get(image)) for image, score in joined]
            return FoundImages(with_captions(connection, scores, condition, limit), self.folder)

    def unknown_names(self, **conditions: Any) -> list[str]:
        """A sentence for each of the conditions that is true of no image: what the library has instead."""
        with self.database.read() as connection:
            return unknown_names(connection, resolve("search", flags=conditions).values.filter)

    def duplicates(self, words: str = "", **options: Any) -> DuplicateGroups:
        """Copies and images that look alike, among those that have the words and of which the conditions are true.

        `options` are the conditions of `captune search --help`, and `limit`: how many groups at most.
        """
        values = resolve("search", flags=options).values
        if values.search.mode != "words":
            raise UsageError("Duplicates are not looked for by meaning.", "Leave out --mode, or --duplicates.")
        with self.database.read() as connection:
            found = duplicate_groups(connection, words, condition_of(values.filter))
        return DuplicateGroups(found[: values.search.limit or None], self.folder)

    def status(self) -> Status:
        """What the library has."""
        with self.database.read() as connection:

            def count(query: str) -> int:
                return int(connection.execute(query).fetchone()[0])

            def counts(query: str) -> dict[str, int]:
                return {str(name): int(number) for name, number in connection.execute(query)}

            here = "FROM images i WHERE i.gone IS NULL"
            statuses, writers, flags = Counter[str](), Counter[str](), Counter[str]()
            for status, writer, named, number in connection.execute(_CAPTIONS_OF_EACH_KIND):
                statuses[status] += number
                writers[writer] += number
                flags.update(dict.fromkeys(named.split(), number))
            return Status(
                folder=str(self.folder),
                images=count(f"SELECT count(*) {here}"),
                without_caption=count(
                    "SELECT count(*) FROM without_caption JOIN images ON id = image AND gone IS NULL"
                ),
                unreadable=count(f"SELECT count(*) {here} AND problem IS NOT NULL"),
                gone=count("SELECT count(*) FROM images WHERE gone IS NOT NULL"),
                captions=statuses.total(),
                statuses=dict(sorted(statuses.items())),
                writers=dict(writers.most_common()),
                flags=dict(flags.most_common()),
                keywords=count("SELECT count(DISTINCT keyword) FROM keywords"),
                vectors=counts(
                    "SELECT name, count(*) FROM vectors JOIN embedders ON embedders.id = embedder GROUP BY name"
                ),
            )

    def problems(self) -> list[str]:
        """What is damaged in the library; empty where nothing is."""
        return [*self.database.problems(), *damaged_vectors(self.database).values()]

    @staticmethod
    def repair(folder: str | os.PathLike[str], own: str | os.PathLike[str] | None = None) -> Repair | None:
        """Mend the database of a folder's library from what can be read of it and its last copy; None if it is whole.

        No other process may use the library meanwhile.
        """
        return repair((Path(folder) / OWN if own is None else Path(own)) / FILE, _file_time())

    def forget_damaged_vectors(self) -> int:
        """Forget the vectors of embedders whose file is damaged, so that `embed` makes them anew; of how many."""
        damaged = damaged_vectors(self.database)
        forget_vectors(self.database, damaged)
        return len(damaged)

    def back_up(self) -> Path:
        """Copy the database into `backups/` beside it."""
        return back_up(self.database, self.own / BACKUPS, _file_time())

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        config: str | os.PathLike[str] | Resolved | None = None,
        progress: Progress = SILENT,
        **options: Any,
    ) -> int | None:
        """Write captions as a file for other trainers, by `format` or the ending of `out`; the number of images.

        Without a format a file `.jsonl` gets all of the library, for `import_from`; then None. Options are those of
        `captune library export`. Raises `CaptuneError` where another file stands in its place.
        """
        resolved = resolve(EXPORT_LIBRARY, file=config, flags=options)
        values, path = resolved.values, os.fspath(out)
        format = values.as_table.format or format_of(path)
        if format is not None:
            return export_captions(self.database, self.folder, Path(path), format, values.filter, progress)
        if any(key.startswith("filter.") for key in resolved.sources):
            raise UsageError("Without a format all of the library is written.", "Choose one: --format jsonl")
        check_place(Path(path))
        with atomic_file(path) as file:
            write_lines(export_rows(self.database), file)
        return None

    def import_from(self, path: str | os.PathLike[str]) -> int:
        """Fill an empty library with what `export` wrote; the number of images."""
        return import_rows(self.database, Path(path))


def search(
    words: str = "",
    folder: str | os.PathLike[str] = ".",
    *,
    like: Any = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> FoundImages:
    """Images of the library of a folder; see `Library.search`. Options are those of `captune search --help`."""
    values = resolve("search", file=config, environment=environment, flags=options, sets=sets).values
    library = Library(folder, values.library.library)
    chosen = values.search.model_dump() | values.filter.model_dump()
    return library.search(words, like=like, run_on=values.run_on, progress=progress, **chosen)


def _file_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
