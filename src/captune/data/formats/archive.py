"""Pictures that lie in a zip or tar beside the captions: read one at a time, never unpacked as a whole."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from captune.core.errors import CaptuneError
from captune.core.files import open_regular
from captune.core.limits import MAX_IMAGE_BYTES
from captune.data.bulk.tar import CutOff, Member, headers_only, is_compressed, members
from captune.data.formats.endings import alike, by_stem
from captune.data.formats.places import is_image_name
from captune.data.source import EmbeddedImage, UnreadableImage

ENDINGS = (".zip", ".tar")


def pictures_of(archive: Path) -> Callable[[str], EmbeddedImage | list[str]]:
    """A function from a picture's name, with or without folders, to the picture in the archive.

    One under another ending is taken where only one can be meant; else what it may be comes
    out, an empty list where nothing is. Raises `CaptuneError` for a file that is no whole zip or uncompressed tar.
    """
    try:
        open_regular(archive).close()
        members = _zip(archive) if archive.suffix.lower() == ".zip" else _tar(archive)
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise CaptuneError(
            f"{archive} cannot be opened as an archive of pictures ({error}).",
            f"Expected a whole {' or '.join(ENDINGS)}; or unpack it and name the folder: --images DIR.",
        ) from None
    alone: dict[str, list[str]] = {}
    for name in members:
        alone.setdefault(PurePosixPath(name).name, []).append(name)
    stems = by_stem(alone)

    def picture(name: str) -> EmbeddedImage | list[str]:
        name = name.replace("\\", "/")
        base = PurePosixPath(name).name
        found = [name] if name in members else alone.get(base) or _other_endings(name, base)
        if len(found) != 1:
            return found
        return EmbeddedImage(PurePosixPath(found[0]).name, members[found[0]], found[0])

    def _other_endings(name: str, base: str) -> list[str]:
        there = [one for other in alike(base, stems) for one in alone[other]]
        folder = PurePosixPath(name).parent
        return [one for one in there if PurePosixPath(one).parent == folder] or there

    return picture


def _zip(path: Path, largest: int = MAX_IMAGE_BYTES) -> dict[str, Callable[[], bytes]]:
    zipped = zipfile.ZipFile(path)

    def reader(name: str) -> Callable[[], bytes]:
        def read() -> bytes:
            size = zipped.getinfo(name).file_size  # no more than that is unpacked
            if size > largest:
                raise UnreadableImage(f"{name} has {size:,} bytes in {path.name}, too many for a picture")
            try:
                return zipped.read(name)
            except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
                raise UnreadableImage(f"{name} cannot be read from {path.name} ({error})") from None

        return read

    return {name: reader(name) for name in zipped.namelist() if is_image_name(name) and "__MACOSX" not in name}


def _tar(path: Path) -> dict[str, Callable[[], bytes]]:
    entries: dict[str, Member] = {}
    with open_regular(path) as file:
        if is_compressed(file):
            raise tarfile.ReadError("it is compressed")
    for member in members(str(path), load=headers_only):
        if isinstance(member, CutOff):
            raise tarfile.ReadError(member.reason)
        entries[member.name] = member
    # A hard link has its bytes where it leads to.
    files = {name: entries.get(one.link, one) if one.link else one for name, one in entries.items()}
    places = {name: (one.data_offset, one.size) for name, one in files.items() if not one.other}

    def reader(offset: int, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)

        return read

    return {name: reader(*place) for name, place in places.items() if is_image_name(name)}
