"""Images that lie in archives: a job's captions are of them, and an archive is read where one of them is shown."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from captune.core.errors import CaptuneError, ImageError
from captune.core.files import open_regular
from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.stores.files import Fetch, is_remote
from captune.datasets.sources.hub import HUB
from captune.datasets.sources.input_shards import KINDS, ImageSource, InputShard, read_images

_SIGNS = (os.sep, "#")
_GONE = "Bring the archive back (is a disk not mounted?); captions can be corrected without it."


class ArchivedImages:
    """The images of input shards of archives, by their paths: `ARCHIVE/NAME`, `TABLE#ROW`, `FOLDER/SPLIT#ROW/NAME`.

    `shards` are by the paths of their archives. Nothing is fetched from elsewhere.
    """

    def __init__(self, shards: Iterable[tuple[str, InputShard]]) -> None:
        self._shards: dict[str, list[InputShard]] = {}
        for archive, shard in shards:
            self._shards.setdefault(archive, []).append(shard)

    def archive_of(self, path: str) -> str | None:
        """The archive that an image lies in; None of a file of its own."""
        if self._shards:
            for end, letter in enumerate(path):
                if letter in _SIGNS and path[:end] in self._shards:
                    return path[:end]
        return None

    def images(self, archive: str, paths: Collection[str]) -> Iterator[tuple[str, bytes | ImageError]]:
        """The bytes of the files of images in an archive, or why there are none, as they come in it."""
        wanted = set(paths)
        try:
            for shard in self._shards[archive]:
                for source in self._read(archive, shard):
                    path = os.path.normpath(source.name)
                    if path in wanted:
                        wanted.remove(path)
                        yield path, _bytes_of(source)
                    if not wanted:
                        return
        except CaptuneError as error:
            for path in wanted:
                yield path, _lost(path, error)
            return
        for path in wanted:
            yield path, _missing(path, archive)

    def read(self, path: str) -> bytes:
        """The bytes of the file of one image; raises `ImageError`."""
        archive = self.archive_of(path)
        assert archive is not None
        first = self._shards[archive][0]
        try:
            least = KINDS[first.kind].image_shard(first.location, path[len(archive) :])
            for source in self._read(archive, replace(least, inside=first.inside)):
                if os.path.normpath(source.name) == path:
                    found = _bytes_of(source)
                    if isinstance(found, ImageError):
                        raise found
                    return found
        except (KeyError, OSError):
            raise _missing(path, archive) from None
        except ImageError:
            raise
        except CaptuneError as error:
            raise _lost(path, error) from None
        raise _missing(path, archive)

    def _read(self, archive: str, shard: InputShard) -> Iterator[ImageSource]:
        if is_remote(shard.location) or shard.location.startswith(HUB):
            raise ImageError(archive, f"lies elsewhere ({shard.location}), from where nothing is fetched for the page")
        return read_images(shard)


def _bytes_of(source: ImageSource) -> bytes | ImageError:
    found = source.source
    try:
        if isinstance(found, bytes):
            return found
        if isinstance(found, str):
            with open_regular(found) as file:
                data = file.read(MAX_IMAGE_BYTES + 1)
            if len(data) > MAX_IMAGE_BYTES:
                return ImageError(source.name, "has too many bytes for an image", "Is it an image?", kind="giant")
            return data
        if isinstance(found, Fetch):
            return ImageError(source.name, "lies at an address, from where nothing is fetched for the page")
        return found()
    except OSError as error:
        return ImageError(source.name, error.strerror or str(error), kind="missing")
    except CaptuneError as error:
        return _lost(source.name, error)


def _lost(path: str, error: CaptuneError) -> ImageError:
    if isinstance(error, ImageError):
        return ImageError(path, error.reason, error.hint, kind=error.kind)
    return ImageError(path, error.message.rstrip("."), _GONE, kind="missing")


def _missing(path: str, archive: str) -> ImageError:
    return ImageError(path, f"is not in {archive} (any more)", _GONE, kind="missing")
