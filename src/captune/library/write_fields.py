"""Captions and keywords out of a library into its images: XMP, and IPTC and EXIF where an image has them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.captions.writers.writer import one_line
from captune.core.errors import ImageError
from captune.core.files.existing import ExistingCaptions
from captune.core.files.fingerprints import file_content
from captune.images.metadata.files import (
    CaptionEdit,
    Edit,
    existing_keywords,
    existing_texts,
    is_foreign,
    is_written,
    packet_path,
    write_in_place,
)
from captune.images.metadata.keywords import KeywordReader, KeywordWriter, comparable, unique
from captune.images.metadata.xmp import NOTED
from captune.library.beside import State, note_captions, note_written, source_state, state_of
from captune.library.database import Database, encoded
from captune.library.outgoing import OutgoingCaption, OutgoingImage


@dataclass(frozen=True)
class KeywordsEdit:
    """Exactly these keywords, in the order of those that stand in the image; captune's mark stays on its own."""

    keywords: tuple[str, ...]
    existing: ExistingCaptions

    def reader(self) -> KeywordReader:
        return KeywordReader()

    def writer(self, words: list[str], read: KeywordReader) -> KeywordWriter | None:
        """What writes; None: the image has these keywords."""
        wanted = {comparable(keyword) for keyword in self.keywords}
        standing = read.keywords()
        if {comparable(keyword) for keyword in standing} == wanted:
            return None
        remaining = [keyword for keyword in standing if comparable(keyword) in wanted]
        own = [keyword for keyword in read.own if comparable(keyword) in wanted]
        return KeywordWriter(unique([*remaining, *self.keywords]), own)


class ImageFields:
    """The fields of a library's images, where nothing of a person's is overwritten that the library does not have."""

    def __init__(self, database: Database, folder: str, *, keywords: bool) -> None:
        self._database, self._folder, self._keywords = database, folder, keywords

    def write(self, image: OutgoingImage, *, dry_run: bool) -> str:
        """Write an image's first caption, and its keywords: `written`, `unchanged`, or `changed` by somebody.

        Raises `ImageError` or `NotWritable` for what concerns this image alone.
        """
        path = os.path.join(self._folder, image.path)
        if not os.path.exists(path):
            raise ImageError(image.path, "it is no file any more", "Bring the library in step: captune library add")
        before, packet = state_of(Path(path)), self._packet_state(image.path)
        edits = [*self._edits(image)]
        if is_written(path, *edits):
            return "unchanged"
        if before != image.state or not self._knows_packet(image, packet):
            return "changed"
        beside = packet_path(Path(path))
        if is_foreign(beside):
            raise ImageError(image.path, f"{beside.name} beside it is no XMP packet that could be changed")
        if not dry_run:
            write_in_place(path, *edits)
            with self._database.write() as connection:
                self._note(connection, image, before, packet)
        return "written"

    def commit(self) -> None:
        """Each image is noted by itself: after a stop at most one is read again."""

    def _edits(self, image: OutgoingImage) -> Iterator[Edit]:
        existing = ExistingCaptions("replace")
        if image.captions:
            first = image.captions[0]
            yield CaptionEdit(one_line(first.text), existing, _noted(first) if first.is_draft else None)
        if self._keywords:
            yield KeywordsEdit(image.keywords, existing)

    def _packet_state(self, image: str) -> State | None:
        path = Path(self._folder, self._packet(image))
        return state_of(path) if path.is_file() else None

    def _packet(self, image: str) -> str:
        """`photo.gif.xmp`, where what an image cannot hold is written."""
        return str(packet_path(Path(image)))

    def _knows_packet(self, image: OutgoingImage, state: State | None) -> bool:
        """Whether the library has what a person wrote in a packet beside an image."""
        connection, name = self._database.connection, self._packet(image.path)
        if state is None or state == source_state(connection, name):
            return True
        data = Path(self._folder, name).read_bytes()
        words = existing_texts(b"", data) or (self._keywords and existing_keywords(b"", data).words())
        return not words

    def _note(self, connection: sqlite3.Connection, image: OutgoingImage, before: State, packet: State | None) -> None:
        """Note what the image is now; its vectors stay: they are of what it shows."""
        captions = tuple(caption.id for caption in image.captions[:1])
        path = Path(self._folder, image.path)
        after = state_of(path)
        if after != before:
            values = (*after, file_content(str(path)), image.id)
            connection.execute("UPDATE images SET bytes = ?, modified = ?, digest = ? WHERE id = ?", values)
            connection.execute(
                "UPDATE vectors SET digest = ? WHERE image = ? AND digest = ?", (values[2], image.id, image.digest)
            )
            note_captions(connection, image.id, encoded(image.path), captions)
        written = self._packet_state(image.path)
        if written is not None and written != packet:
            note_written(connection, image.id, self._packet(image.path), written, captions)


def _noted(caption: OutgoingCaption) -> Mapping[str, str]:
    """What captune's mark in an image has of a model's caption."""
    provenance: dict[str, Any] = json.loads(caption.provenance)
    known = {name: provenance.get("captune" if name == "version" else name, "") for name in NOTED}
    own = provenance.get("own_words") or ()
    return {**known, "model": caption.model, "ownWords": "".join(own)}
