"""Paths that users and tables name: patterns, links, and which files a table may name.

A table (CSV, JSON, Parquet, a prepared folder, a list of names) may come from a stranger, and what it names is read
and may be written elsewhere. The folder is the one that the user names, else the table's own. Links are followed
before they are judged, so that a link inside of the folder that leads out of it names a file outside.

What is there under its own name is meant by it, whatever signs it holds: `Photos [2021]/*.jpg` looks into that folder.
Braces without a comma or a range, and brackets without a range beside no other sign, are letters of a name.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import read_json, write_json
from captune.core.text import shortened

ANYWHERE = "*"
MARK = ".written-here"
CLEANED = "captions.jsonl"  # of `captune capfilt`
STEP = "name its folder with --images, or take it all the same with --allow-outside"
# Spellings of places that no path below a folder has: a scheme, a home folder, a drive, a Windows share.
_ELSEWHERE = re.compile(r"[^/]*://|file:|~|[A-Za-z]:[\\/]|\\\\|//", re.IGNORECASE)
# Addresses that a table may hold. The rest of fsspec's file systems read this machine, or lead on to one that does.
_STORES = frozenset(("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory"))
_ARCHIVES = frozenset(("zip", "tar", "gzip", "bz2", "xz"))
_LOCAL = ("file://", "local://")


@dataclass(frozen=True)
class Images:
    """Where the images that a source names may lie: in `folder` (None: where the source lies), or anywhere."""

    folder: Path | None = None
    allow_outside: bool = False

    def boundary(self, *near: str | os.PathLike[str]) -> Boundary:
        """What may be named; `near` are the source's own folders, which count where no other was named."""
        return Boundary(near if self.folder is None else (self.folder,), anywhere=self.allow_outside)


BESIDE = Images()


class Boundary:
    """The folders inside of which files may be named, with their links followed."""

    def __init__(self, folders: Iterable[str | os.PathLike[str]], *, anywhere: bool = False) -> None:
        self.folders = tuple(dict.fromkeys(os.fspath(folder) for folder in folders))
        self.anywhere = anywhere
        self._roots = tuple(root for folder in self.folders for root in _roots(folder))
        self._real: dict[str, str] = {}

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path, there or not, leads into one of the folders."""
        if self.anywhere:
            return True
        path = os.fspath(path)
        if "\0" in path:
            return False
        real = self._followed(path)
        return any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots)

    def find(self, name: str, bases: Iterable[str | os.PathLike[str]]) -> str | None:
        """The file that a name means, looked for from each base; None where it is not to be named.

        A file that is not there comes out as a path below the first base that is allowed.
        """
        if "\0" in name:
            return None
        paths = [os.path.join(base, name) for base in bases]
        allowed = [path for path in paths if self.holds(path)]
        there = next((path for path in allowed if os.path.exists(path)), None)
        if there is not None or self.anywhere:
            return there or paths[0]
        if elsewhere(name) or any(map(os.path.lexists, paths)):
            return None
        return allowed[0] if allowed else None

    def reason(self, name: str) -> str:
        """Why a name is refused, and what the user can do."""
        where = " and ".join(folder or "." for folder in self.folders[:2]) or "every folder that may be read"
        return f"{shortened(name)} lies outside of {where}: {STEP}"

    def _followed(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir):
            return os.path.realpath(path)
        if folder not in self._real:  # one call for each folder: following a path costs much more than looking at it
            self._real[folder] = os.path.realpath(folder or os.curdir)
        whole = os.path.join(self._real[folder], name)
        return os.path.realpath(whole) if os.path.islink(whole) else whole


def mark_written(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Note that captune wrote these files of a folder where they lie: what they name needs no limit."""
    path = Path(folder) / MARK
    before = read_json(path) if path.is_file() else {}
    marks = {**(before if isinstance(before, dict) else {}), **{name: _inode(path.parent / name) for name in names}}
    write_json(path, marks)


def written_here(folder: str | os.PathLike[str], names: Iterable[str]) -> bool:
    """Whether captune wrote these files of a folder on this machine, and nobody sent or copied them.

    The mark holds their inode numbers, which nobody who sends a folder can know.
    """
    try:
        marks = read_json(Path(folder) / MARK)
        return all(marks[name] == _inode(Path(folder) / name) for name in names)
    except (OSError, CaptuneError, KeyError, TypeError, IndexError):
        return False


def _inode(path: Path) -> int:
    return path.stat().st_ino


class Refused(ImageError):
    """A file that a table names and must not."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason, "Only for tables that you trust: --allow-outside", kind="permission")

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        return type(self), (self.path, self.reason)


def elsewhere(name: str) -> bool:
    """Whether a name is spelled as a place of its own: absolute, `~`, a drive, a share, a scheme, or above (`../`)."""
    return any(
        os.path.isabs(spelled)
        or _ELSEWHERE.match(spelled) is not None
        or os.path.normpath(spelled.replace("\\", "/")).split(os.sep)[0] == os.pardir
        for spelled in (name, unquote(name))
    )


def is_open_address(address: str) -> bool:
    """Whether an address in a table leads to a store or a server, through archives perhaps, and not to this machine."""
    *inner, last = address.split("::") if not address.lower().startswith(("http://", "https://")) else [address]
    return _scheme(last) in _STORES and all(_scheme(part) in _ARCHIVES for part in inner)


def local_path(address: str) -> str:
    """The path of `file://…`, so that it is judged as one; anything else as it is."""
    lower = address.lower()
    return next((address[len(start) :] for start in _LOCAL if lower.startswith(start)), address)


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower() if "://" in address else ""


def _roots(folder: str) -> list[str]:
    """The real folder, and where it is a snapshot in the cache of the Hub, the files that its links lead to."""
    root = os.path.realpath(folder or os.curdir)
    parts = Path(root).parents
    snapshots = next((parent for parent in parts if parent.name == "snapshots"), None)
    blobs = snapshots.parent / "blobs" if snapshots is not None else None
    return [root, os.path.realpath(blobs)] if blobs is not None and blobs.is_dir() else [root]


# Visits to folders that were visited before. Data sets that link a few hundred times stay far below; two links in
# each of 22 nested folders are four million.
MAX_REVISITS = 10_000


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or what a Mac leaves beside real files: `._dog.jpg`, `__MACOSX`."""
    return name.startswith((".", "__MACOSX"))


class FolderVisits:
    """The folders of a walk; raises `CaptuneError` where links lead into the same ones without end."""

    def __init__(self, start: str, most: int = MAX_REVISITS) -> None:
        self._start, self._most = start, most
        self._known: set[tuple[int, ...]] = set()
        self._again = 0

    def enter(self, folder: tuple[int, ...], name: str) -> None:
        """Count a visit to a folder, known by its device and number and whatever else tells visits apart."""
        self._again += folder in self._known
        self._known.add(folder)
        if self._again > self._most:
            raise CaptuneError(
                f"Links in {self._start} lead into the same folders more than {self._most:,} times (at {name}).",
                "Remove links, or name the folders: find FOLDER -name '*.jpg' | captune caption - --images FOLDER",
            )


_BRACES = re.compile(r"\{([^{}]*,[^{}]*|\d+\.\.\d+)\}")
_SEVERAL = re.compile(r"[*?]|\[[!^][^\]]+\]|\[[^\]]*[^\[\]]-[^\]]+\]")


class Listed(str):
    """A name out of a list, which is never a pattern."""


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files by its signs; never where a file of this name is there."""
    if isinstance(name, Listed):
        return False
    return bool(_SEVERAL.search(name) or _BRACES.search(name)) and not os.path.lexists(name)


def has_wildcards(name: str) -> bool:
    """Whether a name without braces stands for several files."""
    return bool(_SEVERAL.search(name))


def expand(pattern: str) -> list[str]:
    """Shell braces: `{000..012}` and `{a,b}`; those of a folder that is there are letters of its name."""
    for match in _BRACES.finditer(pattern):
        end = pattern.find("/", match.end())
        if end > 0 and os.path.isdir(pattern[:end]):
            continue
        first, dots, last = match[1].partition("..")
        if dots:
            choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        else:
            choices = match[1].split(",")
        around = pattern[: match.start()], pattern[match.end() :]
        return list(itertools.chain.from_iterable(expand(f"{around[0]}{choice}{around[1]}") for choice in choices))
    return [pattern]


def matches(pattern: str, visits: FolderVisits | None = None) -> list[str]:
    """The files that a pattern without braces stands for, sorted; `**` is any number of folders, none hidden."""
    start, parts = (os.sep, pattern[1:].split("/")) if pattern.startswith("/") else ("", pattern.split("/"))
    named = [part for part in parts if part]
    # Several ** in a row mean what one does, and would look into each folder again and again.
    once = [part for part, several in groupby(named) for _ in (several if part != "**" else "1")]
    found = _below(start, once, visits or FolderVisits(pattern))
    return sorted({path for path in found if os.path.isfile(path)})


def _below(folder: str, parts: list[str], visits: FolderVisits) -> Iterator[str]:
    """What the parts of a pattern stand for in a folder."""
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    here = os.path.join(folder, first)
    if os.path.lexists(here):
        yield from _below(here, rest, visits)
    elif first == "**":
        _enter(folder, len(parts), visits)
        yield from _below(folder, rest, visits)
        for name in _names(folder):
            if os.path.isdir(inner := os.path.join(folder, name)):
                yield from _below(inner, parts, visits)
            elif not rest:
                yield inner
    else:
        for name in _names(folder, hidden=first.startswith(".")):
            if fnmatchcase(name, first):
                yield from _below(os.path.join(folder, name), rest, visits)


def _enter(folder: str, left: int, visits: FolderVisits) -> None:
    """Count a visit for a `**` with so many parts of the pattern left."""
    with suppress(OSError):  # no folder, or a closed one: nothing in it matches
        found = os.stat(folder or ".")
        visits.enter((found.st_dev, found.st_ino, left), folder or ".")


def _names(folder: str, *, hidden: bool = False) -> list[str]:
    try:
        return [name for name in os.listdir(folder or ".") if hidden or not name.startswith(".")]
    except OSError:  # no folder, or a closed one: nothing in it matches
        return []
