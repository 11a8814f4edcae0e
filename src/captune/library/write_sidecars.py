"""Captions out of a library into text files beside its images: `photo.txt` for `photo.jpg`."""

from __future__ import annotations

import os
from pathlib import Path

from captune.captions.writers.joined import digests_of
from captune.captions.writers.writer import encodable
from captune.core.errors import ImageError
from captune.core.files import NotWritable, atomic_file, disk_error, open_regular
from captune.core.files.existing import LEDGER, Ledger, split_keywords, with_keywords
from captune.core.sidecars import captions_in, file_text
from captune.core.text import decoded
from captune.library.beside import State, has_stem, note_written, source_state, state_of
from captune.library.database import Database
from captune.library.outgoing import OutgoingImage


class SidecarFiles:
    """Sidecars of a library's images, where nothing of a person's is overwritten that the library does not have."""

    def __init__(self, database: Database, folder: str, suffix: str) -> None:
        self._database, self._folder, self._suffix = database, folder, suffix
        self._ledgers: dict[Path, Ledger] = {}
        self._written: list[tuple[int, str, State, tuple[int, ...]]] = []

    def write(self, image: OutgoingImage, *, dry_run: bool) -> str:
        """Write the captions of an image: `written`, `unchanged`, or `changed` where somebody changed the file.

        Raises `ImageError` or `NotWritable` for what concerns this image alone.
        """
        if not os.path.exists(os.path.join(self._folder, image.path)):
            raise ImageError(image.path, "it is no file any more", "Bring the library in step: captune library add")
        name = self._name(image.path)
        path = Path(self._folder, name)
        state, before = _read(path)
        lines, keywords = split_keywords(decoded(before), self._ledger(path.parent), path.name)
        text = with_keywords(file_text([encodable(caption.text) for caption in image.captions]), keywords).encode()
        known = source_state(self._database.connection, name)
        written = tuple(caption.id for caption in image.captions)
        if before == text and state is not None:
            if state != known:
                self._written.append((image.id, name, state, written))
            return "unchanged"
        if state != known and not self._is_captunes(path, "".join(lines)):
            return "changed"
        if not dry_run:
            if state is not None and not os.access(path, os.W_OK):
                raise NotWritable(f"No permission to write {path}.", "Change its permissions.")
            drafts = [encodable(caption.text) for caption in image.captions if caption.is_draft]
            self._ledger(path.parent).add(digests_of(path.name, drafts, alone=True))
            with atomic_file(path, "wb") as file:
                file.write(text)
            self._written.append((image.id, name, state_of(path), written))
        return "written"

    def commit(self) -> None:
        """Note in the library what was written since the last call, so that it is not read as somebody else's."""
        if self._written:
            with self._database.write() as connection:
                for each in self._written:
                    note_written(connection, *each)
            self._written.clear()

    def _name(self, image: str) -> str:
        """`photo.txt`; `photo.jpg.txt` where that stands already, or where `photo.txt` is of another image."""
        whole, own = image + self._suffix, os.path.splitext(image)[0] + self._suffix
        if os.path.lexists(os.path.join(self._folder, whole)):
            return whole
        return own if has_stem(self._database.connection, image) else whole

    def _is_captunes(self, path: Path, before: str) -> bool:
        """Whether captune wrote all captions in the text of a file, as they stand."""
        ledger = self._ledger(path.parent)
        return all(ledger.has(path.name, caption) for caption in captions_in(before))

    def _ledger(self, folder: Path) -> Ledger:
        if folder not in self._ledgers:
            self._ledgers[folder] = Ledger(folder / LEDGER)
        return self._ledgers[folder]


def _read(path: Path) -> tuple[State | None, bytes]:
    """State and contents of a file; None and nothing where there is none."""
    try:
        if not path.exists():
            return None, b""
        state = state_of(path)
        with open_regular(path) as file:
            return state, file.read()
    except OSError as error:
        raise disk_error(error, path) from error
