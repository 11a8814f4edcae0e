"""Where caption files lie in a folder, found without walking its images."""

import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from itertools import chain
from pathlib import Path

from captune.core.errors import UsageError
from captune.core.files.paths import expand, is_hidden, is_pattern, matches
from captune.core.stores import EXPLAINED, JOB
from captune.images.signatures import is_image_name

_TELLING = ("caption", "token", "result", "annotation", "metadata", "train", "val", "test", "data")
_MANY = 20
_DEPTH = 3
_MAX_NAMES = 10_000


def list_folder(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files that are no images (at most 10,000), and of the folders; hidden ones left out."""
    return _listed(folder)[:2]


def unopened(source: Path) -> list[str]:
    """Pipes, sockets and devices in a folder and in those just below it, by their paths: none is opened."""
    folders = chain.from_iterable(folder_levels(source, 2))
    return [str((folder / name).relative_to(source)) for folder in folders for name in _listed(folder)[2]]


def folder_levels(source: Path, depth: int = _DEPTH, most: int | None = None) -> Iterator[list[Path]]:
    """The folder itself, the folders in it, those in these and so on; of each level below `most` at most."""
    level = [source]
    for _ in range(depth):
        yield level
        level = [folder / name for folder in level for name in list_folder(folder)[1]][:most]


def _listed(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    try:
        return _listing(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return (), (), ()


@lru_cache(maxsize=256)
def _listing(folder: str, changed: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    files: list[str] = []
    folders: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # captune's own files are no captions.
            if is_hidden(entry.name) or entry.name == JOB or entry.name.endswith(EXPLAINED):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif not entry.is_file() and not (entry.is_symlink() and not os.path.exists(entry.path)):
                if not is_image_name(entry.name):  # of images their rows tell
                    others.append(entry.name)
            elif not is_image_name(entry.name) and (
                len(files) < _MAX_NAMES or entry.name.endswith((".tar", ".parquet"))
            ):
                files.append(entry.name)
    return tuple(sorted(files)), tuple(sorted(folders)), tuple(sorted(others))


def clear_cache() -> None:
    """Look at the disk again."""
    _listing.cache_clear()


def find_caption_files(source: Path, patterns: Sequence[str], fits: Callable[[Path], bool]) -> list[Path]:
    """The source if it is a file that fits, else files of its folder that fit and whose names match.

    Where the folder has none, those one folder below count, then those two below. Of very
    many names that match (a text file for every image), only those that speak of
    captions or splits are opened.
    """
    if source.is_file():
        return [source] if fits(source) else []
    for level in folder_levels(source, most=_MANY):
        named = [path for folder in level for path in _matching(folder, patterns)]
        if len(named) > _MANY:
            named = [path for path in named if any(word in path.name.lower() for word in _TELLING)][:_MANY]
        matching = [path for path in named if fits(path)]
        if matching:
            return matching
    return []


def find_shards(source: Path, endings: tuple[str, ...]) -> list[Path]:
    """All files with these endings: the source, those of its folder or else one folder below, or of its pattern."""
    if is_pattern(str(source)):
        return [Path(name) for name in _all_of(str(source)) if name.lower().endswith(endings)]
    if source.is_file():
        return [source] if source.name.lower().endswith(endings) else []
    for folders in folder_levels(source, 2):
        matching = [f / name for f in folders for name in list_folder(f)[0] if name.lower().endswith(endings)]
        if matching:
            return matching
    return []


def _all_of(pattern: str) -> list[str]:
    """The files of a pattern; raises `UsageError` where some that its braces name are missing."""
    by_name = {name: matches(name) for name in expand(pattern)}
    missing = [name for name, files in by_name.items() if not files]
    if not missing:
        return [file for files in by_name.values() for file in files]
    several = ", ".join(missing[:3]) + (f" and {len(missing) - 3:,} more" if len(missing) > 3 else "")
    raise UsageError(
        f"{len(missing):,} of the {len(by_name):,} files of {pattern} are missing: {several}."
        if len(missing) < len(by_name)
        else f"No file matches {pattern}.",
        "Check the folder and the numbers, or name what is there with a pattern such as '*.tar'.",
    )


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [folder / name for name in list_folder(folder)[0] if any(fnmatch(name.lower(), p) for p in patterns)]
