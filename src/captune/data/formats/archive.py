"""Pictures that lie in a zip or tar beside the captions: read one at a time, never unpacked as a whole."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from captune.core.errors import CaptuneError
from captune.data.formats.places import is_image_name
from captune.data.source import EmbeddedImage

ENDINGS = (".zip", ".tar")


def pictures_of(archive: Path) -> Callable[[str], EmbeddedImage | None]:
    """A function from a picture's name, with or without folders, to the picture in the archive, or None.

    Raises `CaptuneError` for a file that is no whole zip or uncompressed tar.
    """
    try:
        members = _zip(archive) if archive.suffix.lower() == ".zip" else _tar(archive)
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise CaptuneError(
            f"{archive} cannot be opened as an archive of pictures ({error}).",
            f"Expected a whole {' or '.join(ENDINGS)}; or unpack it and name the folder: --images DIR.",
        ) from None
    alone = {PurePosixPath(name).name: name for name in members}

    def picture(name: str) -> EmbeddedImage | None:
        name = name.replace("\\", "/")
        found = name if name in members else alone.get(PurePosixPath(name).name)
        return EmbeddedImage(PurePosixPath(found).name, members[found], found) if found is not None else None

    return picture


def _zip(path: Path) -> dict[str, Callable[[], bytes]]:
    zipped = zipfile.ZipFile(path)

    def reader(name: str) -> Callable[[], bytes]:
        return lambda: zipped.read(name)

    return {name: reader(name) for name in zipped.namelist() if is_image_name(name) and "__MACOSX" not in name}


def _tar(path: Path) -> dict[str, Callable[[], bytes]]:
    with tarfile.open(path, "r:") as archive:
        places = {m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive if m.isfile()}

    def reader(offset: int, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)

        return read

    return {name: reader(*place) for name, place in places.items() if is_image_name(name)}
