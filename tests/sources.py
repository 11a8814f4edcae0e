"""Data sets to read: files and tars of little images, and everything that a source says of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from captune.datasets.formats import read_source
from captune.datasets.merge import EmbeddedImage, Problem, SourceRecord


def jpeg(number: int, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (number * 40 % 256, 90, 30)).save(file, format)
    return file.getvalue()


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def photos(folder: Path, *names: str) -> None:
    """JPEG files of these names, all different."""
    for number, name in enumerate(names):
        write(folder / name, jpeg(number))


def read_all(
    source: Path | str, format: str | None = None, images: Path | None = None
) -> tuple[str, list[SourceRecord], list[Problem]]:
    """The format of a source, its records and its problems; no image is read."""
    problems: list[Problem] = []
    name, found = read_source(source, format, images, problems)
    return name, list(found), problems


def references(found: Iterable[SourceRecord]) -> dict[str, tuple[str, ...]]:
    """The references of each image by its file name."""
    return {Path(str(record.image)).name: record.references for record in found}


def records(
    source: Path | str, format: str | None = None
) -> tuple[str, list[SourceRecord], list[bytes], list[Problem]]:
    problems: list[Problem] = []
    name, found = read_source(source, format, problems=problems)
    listed, contents = [], []
    for record in found:
        listed.append(record)
        contents.append(record.image.read() if isinstance(record.image, EmbeddedImage) else record.image.read_bytes())
    return name, listed, contents, problems


def tar(path: Path, members: dict[str, bytes | str], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
