"""What the inputs of a command name: images, and archives of them."""

import os
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from captune.core.errors import CaptuneError, UsageError
from captune.core.files.paths import (
    ANYWHERE,
    Boundary,
    FolderVisits,
    Listed,
    expand,
    has_wildcards,
    is_hidden,
    is_open_address,
    is_pattern,
    matches,
)
from captune.core.stores import files as remote
from captune.core.text import shortened
from captune.images.signatures import IMAGE_SUFFIXES, is_image_name

FILES = "files"
ARCHIVES = {
    ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_ON_HUB = "hf:"

Place = tuple[str, str]  # kind and name


def list_inputs(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = True,
    suffixes: Collection[str] = IMAGE_SUFFIXES,
    what: str = "images",
    archives: bool = True,
    warn: Callable[[str], None] | None = None,
    listed: str = ANYWHERE,
) -> Iterator[Place]:
    """Kind and name of each image file and archive that the inputs name: each once, in order.

    Folders and patterns are opened. In a folder, files whose name ends like an image's (as in
    `suffixes`) are taken; where it has none, its archives, but no table of addresses: nothing is
    fetched that was not named. A file that is named outright is taken whatever its name. `warn` is told
    what was left alone. Of what a list names outside of the folder `listed` nothing is opened; it comes out as a file.
    Raises `UsageError` where nothing is found.
    """
    items = [item if isinstance(item, Listed) else os.fspath(item) for item in inputs]
    if not items:
        raise UsageError(f"No {what} were given.", "Name files, folders or patterns, or - for a list on stdin.")
    several = len(items) > 1 or is_pattern(items[0])  # else nothing is named twice, and the list may be very long
    known: set[str] = set()
    for item in items:
        selection = _Selection(suffixes, what, archives, warn or (lambda text: None))
        own = not isinstance(item, Listed)
        for kind, place in _opened(item, recursive, selection) if own else _of_list(item, recursive, selection, listed):
            if several:
                if place in known:
                    continue
                known.add(place)
            yield kind, place


def find_image_paths(
    inputs: Iterable[str | os.PathLike[str]], *, suffixes: Collection[str] = IMAGE_SUFFIXES, what: str = "images"
) -> list[str]:
    """Paths of the files that `list_inputs` finds; archives are not opened."""
    return [place for _, place in list_inputs(inputs, suffixes=suffixes, what=what, archives=False)]


@dataclass(frozen=True)
class _Selection:
    """What of a folder is taken: files with these endings, called `what`, and perhaps archives."""

    suffixes: Collection[str]
    what: str
    archives: bool
    warn: Callable[[str], None]


def check_listed(names: Sequence[str], folder: str) -> None:
    """Raise `UsageError` where a list names no file inside of `folder`: most likely it is the user's own."""
    boundary = Boundary([folder], anywhere=folder == ANYWHERE)
    if names and not any(map(partial(_may_be_listed, boundary), names)):
        raise UsageError(f"The list names no file inside of {folder}: {shortened(names[0])} first.", _list_hint(names))


def _list_hint(names: Sequence[str]) -> str:
    """What to type where a list is one's own: the folder of the files that it names."""
    there = [os.path.dirname(os.path.abspath(name)) for name in names if os.path.exists(name)]
    folder = os.path.commonpath(there) if there else os.sep
    if folder == os.sep:
        return "Name the folder of its files with --images DIR, or take them all the same: --allow-outside"
    return (
        f"If the list is your own, name the folder of its files: captune caption - --images {shlex.quote(folder)}\n"
        "Or take whatever it names: captune caption - --allow-outside"
    )


def _of_list(item: str, recursive: bool, selection: _Selection, folder: str) -> Iterator[Place]:
    boundary = Boundary([folder], anywhere=folder == ANYWHERE)
    if _may_be_listed(boundary, item):
        yield from ((kind, Listed(place)) for kind, place in _opened(item, recursive, selection))
    else:
        yield FILES, item


def _may_be_listed(boundary: Boundary, name: str) -> bool:
    if name.startswith(_ON_HUB) or remote.is_remote(name):
        return boundary.anywhere or name.startswith(_ON_HUB) or is_open_address(name)
    return boundary.holds(name)


def _opened(item: str, recursive: bool, selection: _Selection) -> Iterator[Place]:
    archives = selection.archives
    if archives and item.startswith(_ON_HUB):
        yield "datasets", item
    elif remote.is_remote(item):
        yield from _remote(item, recursive, selection)
    elif os.path.isdir(item):
        if archives and _is_saved_dataset(item):
            yield "datasets", item
        else:
            yield from _folder(item, walk(item, recursive), selection)
    elif is_pattern(item):
        for name in expand(item):
            matched = matches(name)
            if not matched:
                raise UsageError(f"No file matches {name}.", "Check the pattern and the folder.")
            yield from ((_kind(place, archives), place) for place in matched)
    else:
        yield _kind(item, archives), item  # a missing image becomes a row with its reason


def _folder(folder: str, names: Iterable[str], selection: _Selection) -> Iterator[Place]:
    """The images of a folder; where there is none, its archives."""
    has_images = False
    archives: list[Place] = []
    for name in names:
        if os.path.splitext(name)[1].lower() in selection.suffixes:
            has_images = True
            yield FILES, name
        elif selection.archives and (kind := _kind(name, True)) != FILES:
            archives.append((kind, name))
    if not has_images and not archives:
        raise UsageError(
            f"There are no {selection.what} in the folder {folder}.",
            f"Looked for: {' '.join(sorted(selection.suffixes))}.",
        )
    yield from _archives_of(folder, archives, selection.warn, beside=has_images)


def _archives_of(folder: str, archives: list[Place], warn: Callable[[str], None], *, beside: bool) -> list[Place]:
    """The archives of a folder that hold images, unless images lie beside them; what is left alone is said.

    Tables of addresses are fetched where they are named, not where a folder happens to hold them.
    """
    content = {name: _content_of(kind, name, strict=not beside) for kind, name in archives}
    taken = [(kind, name) for kind, name in archives if content[name] == "images"]
    addresses = [name for name in content if content[name] == "addresses"]
    other = [name for name in content if content[name] == "none"]
    step = f"To fetch them, name the tables: captune caption {shlex.quote(addresses[0])} …" if addresses else ""
    if beside:
        if taken:
            several = _some(name for _, name in taken)
            warn(f"Archives beside the images in {folder} were left alone: {several}. Name them to caption them too.")
        return []
    if not taken:
        words = "tables of their addresses" if addresses else "tables without a column of images"
        raise UsageError(f"{folder} holds no images, but {words}: {_some(content)}.", step)
    if addresses:
        warn(f"Nothing was fetched for the tables of addresses in {folder}: {_some(addresses)}. {step}")
    if other:
        warn(f"Tables without a column of images in {folder} were left alone: {_some(other)}.")
    return taken


def _content_of(kind: str, name: str, *, strict: bool) -> str:
    from captune.datasets.sources.parquet import holds

    if kind != "parquet":
        return "images"
    try:
        return holds(name)
    except CaptuneError:
        if strict:
            raise
        return "none"  # damaged, beside images that are not


def _some(names: Iterable[str]) -> str:
    every = [os.path.basename(name) for name in names]
    return f"{', '.join(every[:3])} and {len(every) - 3:,} more" if len(every) > 3 else ", ".join(every)


def walk(folder: str, recursive: bool = True, visits: FolderVisits | None = None) -> Iterator[str]:
    """Paths of the files in a folder, in the order of `walk_folders`. Raises as that."""
    for here, names in walk_folders(folder, recursive, visits):
        for name in names:
            path = os.path.join(here, name)
            # What is called as an image is and is none, such as a pipe or a broken link, is a row with its reason.
            if is_image_name(name) or os.path.isfile(path):
                yield path


def walk_folders(
    folder: str, recursive: bool = True, visits: FolderVisits | None = None, *, once: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, each with the names of its files in order; hidden ones are left out.

    Links are followed, loops are not; with `once` a folder that several links lead to comes out once. Raises
    `CaptuneError` for a folder that may not be opened (its images would be missing without a word), and for
    links that lead into the same folders more often than `visits` allows.
    """
    above: dict[str, tuple[tuple[int, int], ...]] = {}
    known: set[tuple[int, int]] = set()
    visits = visits or FolderVisits(folder)
    for here, folders, names in os.walk(folder, followlinks=True, onerror=_closed):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        try:
            status = os.stat(here)
        except OSError as error:
            _closed(error)
        trail = (*above.pop(here, ()), (status.st_dev, status.st_ino))
        if trail[-1] in trail[:-1] or (once and trail[-1] in known):
            folders.clear()
            continue
        known.add(trail[-1])
        visits.enter(trail[-1], here)
        above |= {os.path.join(here, name): trail for name in folders}
        yield here, sorted(name for name in names if not is_hidden(name))
        if not recursive:
            return


def _closed(error: OSError) -> NoReturn:
    raise CaptuneError(
        f"Cannot look into the folder {error.filename}: {error.strerror}.",
        "Change its permissions, or leave it out; captune caption takes a list of files:\n"
        "find FOLDER -name '*.jpg' | captune caption - --images FOLDER",
    )


def _remote(url: str, recursive: bool, selection: _Selection) -> Iterator[Place]:
    archives = selection.archives
    if remote.is_web(url):  # no folders, and ? and * are letters there
        yield from ((_kind(name, archives), name) for name in _expanded(url))
        return
    for name in _expanded(url):
        if not isinstance(url, Listed) and has_wildcards(name) and not remote.exists(name):
            matched = remote.matching(name)
            if not matched:
                raise UsageError(f"No file matches {name}.", "Check the pattern and the bucket.")
            yield from ((_kind(place, archives), place) for place in matched)
        elif _kind(name, archives) != FILES or os.path.splitext(name)[1].lower() in selection.suffixes:
            yield _kind(name, archives), name
        elif name.endswith("/") or remote.is_folder(name):
            yield from _folder(name, remote.walk(name, recursive), selection)
        else:
            yield FILES, name


def _expanded(url: str) -> list[str]:
    return [url] if isinstance(url, Listed) else expand(url)


def is_image_file(name: str) -> bool:
    """Whether a name is that of one image: a file that is there, or an address that ends like one."""
    if remote.is_remote(name):
        path = urlsplit(name).path if remote.is_web(name) else name
        return is_image_name(path) and not is_pattern(path)
    return os.path.isfile(name) and _kind(name, True) == FILES


def _kind(name: str, archives: bool) -> str:
    lower = (urlsplit(name).path if remote.is_web(name) else name).lower()
    return next((kind for ending, kind in ARCHIVES.items() if archives and lower.endswith(ending)), FILES)


def _is_saved_dataset(folder: str) -> bool:
    from captune.datasets.formats.hub import sniff

    return sniff(Path(folder)) is not None
