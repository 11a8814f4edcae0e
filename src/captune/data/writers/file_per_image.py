"""Writers of a file for each image: one that cannot be written stops no other, and all are on the disk in the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from captune.core.errors import ImageError
from captune.core.files import NotWritable, sync_folder
from captune.core.folders import OutputFolders
from captune.data.writers.row import CaptionRow

Source = str | bytes | Callable[[], bytes] | None


class FilePerImage(ABC):
    """`unwritten` has the reason for each image whose file could not be written; its name or permissions forbid it."""

    def __init__(self) -> None:
        self.unwritten: dict[str, str] = {}
        self._folders = OutputFolders()

    def __enter__(self) -> Self:
        return self

    def write(self, row: CaptionRow, source: Source = None) -> None:
        """Write one image's file; `source` where `row.image` is not its path (inside an archive)."""
        if not row.captions:
            return
        try:
            path = self.put(row, source)
        except (NotWritable, ImageError) as error:
            self.unwritten[row.image] = getattr(error, "reason", "") or error.message
        else:
            self._folders.check(path.parent)

    @abstractmethod
    def put(self, row: CaptionRow, source: Source) -> Path:
        """Write the file, and return where; raises `NotWritable` or `ImageError` for what concerns it alone."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every file was whole when it appeared; here their names are put on the disk, with those of new folders."""
        folders = self._folders.folders
        if kind is None:
            for folder in folders:
                self._folders.check(folder)
        above = {parent for folder in folders for parent in [*folder.parents][:3]}
        for each in sorted({*folders, *above}):
            sync_folder(each)
