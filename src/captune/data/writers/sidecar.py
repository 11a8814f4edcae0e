"""Captions as text files beside the pictures."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from captune.core.errors import CaptuneError
from captune.core.files import write_text
from captune.core.names import fitted
from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import encodable, one_line


class SidecarWriter:
    """`photo.txt` beside `photo.jpg`, one caption a line; a failed picture gets none.

    With an output folder the files go there, in the folders that the pictures lie in
    (seen from the working folder; pictures elsewhere by their whole path). Where
    `photo.jpg` and `photo.png` lie together, the second gets `photo.png.txt`. A file that
    already says something else raises `CaptuneError` and stays, unless `overwrite` is set.
    """

    def __init__(self, out: Path | None, stream: TextIO, *, overwrite: bool = False) -> None:
        self.out = out
        self.overwrite = overwrite
        self._written: dict[Path, str] = {}
        self._shortened: list[Path] = []

    @property
    def notes(self) -> list[str]:
        """What the reader should know in the end."""
        if not self._shortened:
            return []
        count, first = len(self._shortened), self._shortened[0]
        return [f"{count} sidecars have a shorter name than their pictures, which are too long, such as {first}."]

    def __enter__(self) -> Self:
        return self

    def write(self, row: CaptionRow) -> None:
        if not row.captions:
            return
        path = self._path(row.image)
        text = "".join(encodable(one_line(caption.text)) + "\n" for caption in row.captions)
        if path.exists() and not self.overwrite and path not in self._written:
            if path.read_bytes() != text.encode():
                raise CaptuneError(
                    f"{path} already exists and says something else.",
                    "Move it away, or write the sidecars into another folder: --out DIR",
                )
        else:
            write_text(path, text)
        self._written[path] = os.path.abspath(row.image)
        if path.stem not in (Path(row.image).stem, Path(row.image).name):
            self._shortened.append(path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to do: every file was whole when it appeared."""

    def _path(self, image: str) -> Path:
        """Where the sidecar of a picture goes: no two pictures of one job share one."""
        whole = os.path.abspath(image)
        if self.out is None:
            picture = Path(image)
            if not picture.parent.is_dir():
                raise CaptuneError(
                    f"{image} does not lie in a folder, so nothing can be written beside it.",
                    "Write the sidecars into a folder: --out DIR",
                )
        else:
            picture = self.out / inside(Path(whole))
        for name in (fitted(picture.stem, ".txt"), fitted(picture.name, ".txt")):
            path = picture.with_name(name)
            if self._written.get(path, whole) == whole:
                return path
        raise CaptuneError(
            f"The sidecar of {image} would be {path}, which another picture has already.",
            "Caption these pictures in two jobs with different --out folders.",
        )


def inside(picture: Path) -> Path:
    """A picture's path as seen from the working folder, or from the root of the file system."""
    here = Path.cwd()
    return picture.relative_to(here) if picture.is_relative_to(here) else picture.relative_to(picture.anchor)
