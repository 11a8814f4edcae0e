"""`prepare` and `caption` find the same images in the same container, with the same bytes and the same errors."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from captune.core.errors import ImageError
from captune.data.bulk.pieces import list_input_shards, read_images
from captune.data.formats import read_source
from captune.data.source import EmbeddedImage, Problem
from sources import jpeg, tar

SAMPLES = {name: data for n in range(5) for name, data in ((f"{n}.jpg", jpeg(n)), (f"{n}.txt", f"text {n}"))}


def captioned(source: Path) -> tuple[dict[str, bytes], list[str]]:
    """What `caption` finds: the bytes of each image by its name, and the reasons of what cannot be read."""
    images: dict[str, bytes] = {}
    reasons = []
    for shard in list_input_shards([str(source)]):
        for image in read_images(shard):
            try:
                data = image.source() if callable(image.source) else image.source
            except ImageError as error:
                reasons.append(error.reason)
                continue
            images[Path(image.name).name] = data if isinstance(data, bytes) else Path(data).read_bytes()
    return images, reasons


def prepared(source: Path) -> tuple[dict[str, bytes], list[str]]:
    """The same of what `prepare` finds."""
    images: dict[str, bytes] = {}
    problems: list[Problem] = []
    for record in read_source(source, None, None, problems)[1]:
        data = record.image.read() if isinstance(record.image, EmbeddedImage) else record.image.read_bytes()
        images[record.where.rpartition(", ")[2]] = data
    return images, [problem.reason for problem in problems]


def damaged(path: Path) -> None:
    """Overwrite the header of the third sample's image."""
    with tarfile.open(path) as shard:
        at = shard.getmember("2.jpg").offset
    data = bytearray(path.read_bytes())
    data[at : at + tarfile.BLOCKSIZE] = bytes(range(256)) * 2
    path.write_bytes(bytes(data))


def without_end(path: Path) -> None:
    with tarfile.open(path) as shard:
        last = shard.getmembers()[-1]
    os.truncate(path, last.offset_data + tarfile.BLOCKSIZE)


def compressed(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def compressed_and_cut(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-40])


@pytest.mark.parametrize(
    "change", [None, damaged, without_end, compressed, compressed_and_cut, lambda path: os.truncate(path, 7000)]
)
def test_a_tar_has_the_same_images_and_errors_for_both(tmp_path: Path, change: object) -> None:
    path = tmp_path / "a.tar"
    tar(path, SAMPLES)
    if callable(change):
        change(path)
    images, reasons = captioned(path)
    there, problems = prepared(path)
    with_caption = {name: data for name, data in images.items() if name in there}
    assert there == with_caption
    assert list(images)[: len(there)] == list(there)
    assert len(images) - len(there) <= 1  # the image before the damage may have lost its text
    assert len(there) == 5 if change in (None, compressed, without_end) else len(there) < 5
    assert [reason for reason in problems if "cannot be read on" in reason] == reasons


def test_links_in_a_tar_are_refused_with_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tar(path, SAMPLES)
    with tarfile.open(path, "a") as shard:
        entry = tarfile.TarInfo("link.jpg")
        entry.type, entry.linkname = tarfile.SYMTYPE, "0.jpg"
        shard.addfile(entry, io.BytesIO())
    (_, (reason,)), (_, (problem,)) = captioned(path), prepared(path)
    assert problem == f"{reason}; unpack the tar and name the folder"
