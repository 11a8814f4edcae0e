"""Pictures under another ending than the captions name: `dog.jpeg` or `dog.JPG` for `dog.jpg`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath

from captune.data.formats.places import is_image_name

Stems = dict[str, list[str]]


def by_stem(names: Iterable[str]) -> Stems:
    """Names of pictures, without folders, by their stem without case."""
    found: Stems = {}
    for name in names:
        if is_image_name(name):
            found.setdefault(os.path.splitext(name)[0].casefold(), []).append(name)
    return found


def alike(name: str, stems: Stems) -> list[str]:
    """The pictures that a name may mean: but for case the same, else of the same stem; several where that is open."""
    stem = os.path.splitext(name)[0] if is_image_name(name) else name
    found = stems.get(stem.casefold(), [])
    same = [other for other in found if other.casefold() == name.casefold()]
    return same or [other for other in found if os.path.splitext(other)[0] == stem] or found


class Folders:
    """Folders of pictures, listed when a name is not there, each once."""

    def __init__(self) -> None:
        self._listed: dict[str, Stems] = {}

    def alike(self, path: str) -> list[str]:
        """Paths of the pictures that a path may mean."""
        folder, name = os.path.split(path)
        if folder not in self._listed:
            try:
                self._listed[folder] = by_stem(os.listdir(folder or "."))
            except OSError:  # no such folder, or a closed one: nothing is found there
                self._listed[folder] = {}
        return [os.path.join(folder, other) for other in sorted(alike(name, self._listed[folder]))]


def several(name: str, found: Iterable[str]) -> str:
    """The reason why none of several is taken."""
    names = " and ".join(PurePosixPath(one).name for one in sorted(found))
    return f"{name} is not there, but {names} are, and nothing says which is meant"
