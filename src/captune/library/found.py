"""What a search of a library found: a list of images that a notebook shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from captune.library.search import FoundImage

# Images that a notebook shows.
_SHOWN = 50


class FoundImages(Sequence[FoundImage]):
    """Images of a library in `folder`, best first. `==` compares with any list of `FoundImage`."""

    def __init__(self, images: Iterable[FoundImage], folder: str | os.PathLike[str]) -> None:
        self.images, self.folder = tuple(images), Path(folder)

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, place: int) -> FoundImage: ...
    @overload
    def __getitem__(self, place: slice) -> FoundImages: ...
    def __getitem__(self, place: int | slice) -> FoundImage | FoundImages:
        return FoundImages(self.images[place], self.folder) if isinstance(place, slice) else self.images[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FoundImages({list(self.images)!r}, folder={str(self.folder)!r})"

    @property
    def paths(self) -> list[str]:
        """The images' files, beginning with the library's folder as it was named."""
        return [os.path.join(self.folder, each.path) for each in self.images]

    def to_json(self) -> list[dict[str, Any]]:
        """What is known of each image, as `captune search --json` prints it; paths are within the folder."""
        return [each.to_json() for each in self.images]

    def _repr_html_(self) -> str:
        """In a notebook: thumbnails with their captions."""
        from captune.library.sheet import figures

        more = len(self) - _SHOWN
        note = f"<p>and {more:,} more</p>" if more > 0 else ""
        return figures(self.images[:_SHOWN], self.folder) + note
