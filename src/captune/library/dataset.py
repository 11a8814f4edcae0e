"""A library as a data set: `captune prepare photos/` takes the captions that people wrote or approved in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files.paths import Images
from captune.core.options.library import FilterOptions
from captune.core.wording import command_line
from captune.datasets.merge import Problems, SourceRecord
from captune.library.database import FILE, OWN, Database
from captune.library.learning_data import assign_parts
from captune.library.outgoing import Outgoing

DESCRIPTION = (
    "the folder of a library (`captune library add`), or with `--images` its own folder: the captions that people "
    "wrote or approved; images that `captune learn` holds out are the test split here too"
)
RANK = 90


def sniff(source: Path, images: Path | None = None) -> str | None:
    found = _find(source, images)
    if found is None or not len(Outgoing(found[0], FilterOptions())):
        return None
    return f"{found[0].path} is a library with captions that people wrote or approved"


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    found = _find(source, images.folder if images is not None else None)
    if found is None:
        raise CaptuneError(f"{source} has no library.", f"Make one: {command_line('library', 'add', source)}")
    database, folder = found
    parts = dict(database.connection.execute("SELECT image, part FROM parts"))
    if parts:  # images that came since belong to a part as well
        assign_parts(database)
        parts = dict(database.connection.execute("SELECT image, part FROM parts"))
    for image in Outgoing(database, FilterOptions()):
        texts = tuple(caption.text for caption in image.captions)
        yield SourceRecord(image.path, folder / image.path, texts, parts.get(image.id), image.path)


def _find(source: Path, images: Path | None) -> tuple[Database, Path] | None:
    """The library of a folder, or in a folder of its own, with the folder of its images."""
    if (source / OWN / FILE).is_file():
        return Database(source / OWN / FILE), source
    if images is not None and (source / FILE).is_file():
        return Database(source / FILE), images
    return None
