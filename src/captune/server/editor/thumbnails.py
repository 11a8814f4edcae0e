"""Images of a library as JPEG of a given side: never a file that lies elsewhere."""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePosixPath

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file
from captune.images.open import open_image
from captune.library.sets.data_set import DataSet

# Sides in pixels of the longer edge; a request gets the next larger one.
SIDES = (320, 800, 1600)
_ON_DISK = 320
_QUALITY = 85


class Thumbnails:
    """JPEG of images in `folder`; small ones are cached in `cache`, by the digest of the image's file."""

    def __init__(
        self, folder: Path, cache: Path, *, max_pixels: int, follow_links: bool = False, data_set: DataSet | None = None
    ) -> None:
        self.folder, self.cache, self.max_pixels, self.follow_links = folder, cache, max_pixels, follow_links
        self.data_set = data_set

    def jpeg(self, path: str, digest: str, side: int) -> bytes:
        """The upright image at a path within the folder; raises `CaptuneError` (`ImageError`)."""
        file = self.resolve(path)
        side = next((each for each in SIDES if each >= side), SIDES[-1])
        cached = self.cache / digest[:2] / f"{digest}-{side}.jpg" if digest.isalnum() and side <= _ON_DISK else None
        if cached is not None and cached.is_file():
            try:
                return cached.read_bytes()
            except OSError:
                cached = None
        image = open_image(self._content(file), max_pixels=self.max_pixels, name=path)
        image.thumbnail((side, side))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=_QUALITY)
        if cached is not None:
            try:
                with atomic_file(cached, "wb") as out:
                    out.write(data.getvalue())
            except CaptuneError:
                return data.getvalue()  # a full disk, a folder that may not be written: it is made again next time
        return data.getvalue()

    def source(self, path: str) -> str | bytes:
        """The file at a path, or its bytes where it lies in an archive; raises `CaptuneError` (`ImageError`)."""
        return self._content(self.resolve(path))

    def _content(self, file: str) -> str | bytes:
        archives = self.data_set.archives if self.data_set is not None else None
        return file if archives is None or archives.archive_of(file) is None else archives.read(file)

    def resolve(self, path: str) -> str:
        """Where an image lies, by its path within the folder; raises `CaptuneError` for one that lies elsewhere."""
        if self.data_set is not None:
            return self._named_by(self.data_set, path)
        parts = PurePosixPath(path).parts
        file = os.path.join(self.folder, path)
        inside = os.path.realpath(file).startswith(os.path.realpath(self.folder) + os.sep)
        if os.path.isabs(path) or ".." in parts or not (inside or self.follow_links):
            raise CaptuneError(
                f"{path} lies outside the library's folder.", "Show what links lead to: captune edit --follow-links"
            )
        return file

    def _named_by(self, data_set: DataSet, path: str) -> str:
        """The file of a data set's image: wherever the set may name it."""
        file = os.path.abspath(os.path.join(self.folder, path))
        if not data_set.may_show(file):
            raise CaptuneError(
                f"{path} lies outside of {self.folder}, which was not made here.",
                "Name the folder of the images with --images, or trust the data set: --allow-outside",
            )
        return file
