"""Captions as a text file beside each image."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TextIO

from captune.captions.row import CaptionRow
from captune.captions.writers.joined import digests_of, joined_text
from captune.captions.writers.writer import encodable
from captune.core.errors import CaptuneError, ImageError
from captune.core.files import NotWritable, OutputFolders, atomic_file, disk_error, open_regular, sync_folder
from captune.core.files.existing import ExistingCaptions, split_keywords, with_keywords
from captune.core.sidecars import file_text
from captune.core.text import encoding_of, fit_name

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
        if self.skips(row):
            return
        try:
            path = self.put(row, source)
        except (NotWritable, ImageError) as error:
            self.unwritten[row.image] = getattr(error, "reason", "") or error.message
        else:
            self._folders.check(path.parent)

    def skips(self, row: CaptionRow) -> bool:
        """Whether nothing is written for a row."""
        return not row.captions or row.captions[0].decorative

    @abstractmethod
    def put(self, row: CaptionRow, source: Source) -> Path:
        """Write the file, and return where; raises `NotWritable` or `ImageError` for what concerns it alone."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Every file was whole when it appeared; here their names are put on the disk, with those of new folders."""
        folders = self._folders.folders
        if kind is None:
            for folder in folders:
                self._folders.check(folder)
        above = {parent for folder in folders for parent in [*folder.parents][:3]}
        for each in sorted({*folders, *above}):
            sync_folder(each)


class SidecarWriter(FilePerImage):
    """`photo.txt` beside `photo.jpg`: its caption as it is, or several, one per line; a failed image gets none.

    With an output folder the files go there, in the folders that the images lie in
    (relative to the working folder; images elsewhere by their whole path). Where
    `photo.jpg` and `photo.png` lie together, the second gets `photo.png.txt`. What captune did not
    write stays, unless `existing` says otherwise. `suffix` takes the place of `.txt`.
    """

    def __init__(
        self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None, suffix: str = ".txt"
    ) -> None:
        super().__init__()
        self.out, self.suffix = out, suffix
        self.existing = existing or ExistingCaptions()
        self._written: dict[Path, str] = {}
        self._shortened: list[Path] = []

    @property
    def notes(self) -> list[str]:
        """Remarks for the user at the end."""
        if not self._shortened:
            return self.existing.notes
        count, first = len(self._shortened), self._shortened[0]
        return [
            *self.existing.notes,
            f"{count} sidecars have a shorter name than their images, which are too long, such as {first}.",
        ]

    def put(self, row: CaptionRow, source: Source) -> Path:
        path = self._path(row.image)
        if path.stem not in (Path(row.image).stem, Path(row.image).name):
            self._shortened.append(path)
        self.existing.fetch(path)
        captions = [encodable(caption.text) for caption in row.captions]
        before = _read(path)
        after = self.joined_text(path, before, captions)
        if after is not None and after != before:
            self.note(path, captions, alone=after == file_text(captions).encode())
            with atomic_file(path, "wb") as file:
                file.write(after)
        self._written[path] = os.path.abspath(row.image)
        return path

    def note(self, path: Path, captions: list[str], *, alone: bool) -> None:
        """Note what is about to be written into a file, `alone` or beside a person's words."""
        self.existing.ledger(path.parent).add(digests_of(self.ledger_name(path), captions, alone=alone))

    def ledger_name(self, path: Path) -> str:
        """Under which name captune notes what it wrote into a file."""
        return path.name

    def joined_text(self, path: Path, before: bytes, captions: list[str]) -> bytes | None:
        """What the file is to hold; None: a person's words are to stay as they are."""
        encoding = encoding_of(before)
        ledger = self.existing.ledger(path.parent)
        lines, keywords = split_keywords(before.decode(encoding), ledger, path.name)
        text = joined_text("".join(lines), captions, self.existing, ledger, self.ledger_name(path))
        if text is None:
            return None
        alone = text == file_text(captions)
        if self.existing.mode != "replace":
            text = with_keywords(text, keywords)
        return text.encode() if alone else encodable(text, encoding).encode(encoding)

    def _path(self, image: str) -> Path:
        """Where the sidecar of an image goes: no two images of one job share one."""
        whole = os.path.abspath(image)
        if self.out is None:
            beside = Path(image)
            if not beside.parent.is_dir():
                raise CaptuneError(
                    f"{image} does not lie in a folder, so nothing can be written beside it.",
                    "Write the sidecars into a folder: --out DIR",
                )
        else:
            beside = self.out / inside(Path(whole))
        for name in (fit_name(beside.stem, self.suffix), fit_name(beside.name, self.suffix)):
            path = beside.with_name(name)
            if self._written.get(path, whole) == whole:
                return path
        raise CaptuneError(
            f"The sidecar of {image} would be {path}, which another image has already.",
            "Caption these images in two jobs with different --out folders.",
        )


def inside(image: Path) -> Path:
    """An image's path as seen from the working folder, or from the root of the file system."""
    here = Path.cwd()
    return image.relative_to(here if image.is_relative_to(here) else image.anchor)


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            return b""
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise disk_error(error, path) from error
