"""What a search of a library found: lists of images and of duplicates that a notebook shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from captune.core.progress import SILENT, Progress
from captune.library.duplicates import DuplicateGroup
from captune.library.search import FoundImage

T = TypeVar("T")
# Images that a notebook shows.
_SHOWN = 50


class Found(Sequence[T]):
    """What was found in the library of a `folder`; `==` compares with any list of the same."""

    def __init__(self, items: Iterable[T], folder: str | os.PathLike[str]) -> None:
        self.items, self.folder = tuple(items), Path(folder)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> T | Self:
        return type(self)(self.items[place], self.folder) if isinstance(place, slice) else self.items[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.items)!r}, folder={str(self.folder)!r})"

    def _path(self, path: str) -> str:
        return os.path.join(self.folder, path)


class FoundImages(Found[FoundImage]):
    """Images, best first."""

    @property
    def paths(self) -> list[str]:
        """The images' files, beginning with the library's folder as it was named."""
        return [self._path(each.path) for each in self.items]

    def to_json(self) -> list[dict[str, Any]]:
        """What is known of each image, as `captune search --json` prints it; paths are within the folder."""
        return [each.to_json() for each in self.items]

    def write_sheet(self, file: str | os.PathLike[str], title: str = "Images", progress: Progress = SILENT) -> None:
        """Write a sheet with thumbnails and captions: .html (one file, nothing beside it), .jpg or .png.

        Raises `CaptuneError` for another ending, for too many images, and where a file is there that is no sheet.
        """
        from captune.library.sheet import write_sheet

        write_sheet(file, title, [self.items], self.folder, progress)

    def _repr_html_(self) -> str:
        """In a notebook: thumbnails with their captions."""
        from captune.library.sheet import figures

        return figures(self.items[:_SHOWN], self.folder) + _and_more(len(self) - _SHOWN, "images")


class DuplicateGroups(Found[DuplicateGroup]):
    """Groups of images that are there twice, copies of a file first."""

    @property
    def paths(self) -> list[list[str]]:
        """The files of each group, beginning with the library's folder as it was named."""
        return [[self._path(each.path) for each in group.images] for group in self.items]

    def to_json(self) -> list[dict[str, Any]]:
        """Each group, as `captune search --duplicates --json` prints it; paths are within the folder."""
        return [each.to_json() for each in self.items]

    def write_sheet(self, file: str | os.PathLike[str], title: str = "Duplicates", progress: Progress = SILENT) -> None:
        """Write a sheet with thumbnails and captions, a row for each group; see `FoundImages.write_sheet`."""
        from captune.library.sheet import write_sheet

        write_sheet(file, title, [group.images for group in self.items], self.folder, progress)

    def _repr_html_(self) -> str:
        """In a notebook: thumbnails with their captions, a row for each group."""
        from captune.library.sheet import group_figures

        return group_figures(self.items[:_SHOWN], self.folder) + _and_more(len(self) - _SHOWN, "groups")


def _and_more(count: int, what: str) -> str:
    return f"<p>and {count:,} more {what}</p>" if count > 0 else ""
