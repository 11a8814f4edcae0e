"""Prepared folders of tiny images and their libraries, made without opening an image: that takes a process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

import captune
from captune.core.records import ImageRecord
from captune.datasets.prepared import staged, write_splits
from captune.library.database import now


def draw(folder: Path, count: int) -> list[Path]:
    """`0.png`, `1.png`, …, none like another."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            Image.new("RGB", (20, 10), (40 * number, 100, 50)).save(path)
    return paths


def prepare(data: Path, splits: Mapping[str, Mapping[Path, Iterable[str]]]) -> Path:
    """As `captune prepare` writes them: the captions of images by split."""
    with staged(data) as stage:
        records = {
            split: [ImageRecord(path.name, str(path), tuple(texts), split) for path, texts in images.items()]
            for split, images in splits.items()
        }
        contents = {path.name: path.stem for images in splits.values() for path in images}
        write_splits(stage, records, contents, {"source": "photos"}, base=data)
    return data


def known(library: captune.Library, paths: Iterable[Path]) -> captune.Library:
    """The library, to which these images are known as they lie there."""
    with library.database.write() as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO images(path, digest, bytes, modified, width, height, added) "
            "VALUES (?, ?, ?, ?, 20, 10, ?)",
            [(str(path), path.stem, path.stat().st_size, path.stat().st_mtime_ns, now()) for path in paths],
        )
    library.add()
    return library
