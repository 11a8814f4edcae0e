"""Prepared folders and jobs of tiny images and their libraries, made without opening an image: that takes a process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

import captune
from captune.captions.provenance import Provenance
from captune.captions.row import CaptionRow
from captune.core.files.paths import mark_written
from captune.core.records import Caption, ImageRecord
from captune.core.stores.local import LocalStore
from captune.datasets.prepared import staged, write_splits
from captune.datasets.sources.input_shards import InputShard
from captune.jobs.manifest import Inputs, Manifest, ShardList
from captune.jobs.shards import SHARD_FORMATS
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


NOTED = Provenance("model", "base", "digest", date="2026-01-02")
SHARDS = (("0.png", "1.png", "2.png"), ("3.png", "bad.png"))


def job_row(name: str, *texts: str, provenance: bool = True) -> CaptionRow:
    captions = tuple(Caption(text, 0.5) for text in texts)
    if not texts:
        return CaptionRow(f"photos/{name}", (), "error", "truncated", "", ())
    noted = NOTED.of(captions) if provenance else None
    return CaptionRow(f"photos/{name}", captions, "ok", None, "", ("cut",) if name == "1.png" else (), noted)


def lay_job(
    folder: Path, format: str = "jsonl", *, here: bool = True, shards: int = 2, provenance: bool = True
) -> Path:
    """A job of five images, one of them bad, in two shards, of which `shards` are written."""
    draw(folder / "photos", 4)
    (folder / "photos" / "bad.png").write_bytes(b"bad")
    store = LocalStore(str(folder / "captions"))
    listed = [InputShard("files", "", 0, len(names), tuple(f"photos/{name}" for name in names)) for names in SHARDS]
    ShardList.of(listed).write(store)
    options = {"caption.format": format, "caption.provenance": "on" if provenance else "off"}
    inputs = Inputs(("photos",), 0, str(folder))
    Manifest("0.1", "base", "digest", options, inputs, len(SHARDS), 5, "2026-01-02").write(store)
    if here:
        mark_written(folder / "captions" / "_job", ["pieces.jsonl"])
    for number, names in enumerate(SHARDS[:shards]):
        texts = [
            [f"a dgo {name[0]}", f"second {name[0]}"] if name == "2.png" else [f"a dgo {name[0]}"] for name in names
        ]
        rows = [job_row(name, *([] if name == "bad.png" else each), provenance=provenance)
                for name, each in zip(names, texts, strict=True)]  # fmt: skip
        suffix = "jsonl" if format == "sidecar" else format
        data = SHARD_FORMATS[suffix].encode(rows, provenance)
        store.publish(f"captions-{number:05d}.{suffix}", data)
    store.publish("_job/report.json", b"{}")
    return folder / "captions"


def open_job(job: Path, **options: Any) -> captune.Library:
    photos = job.parent / "photos"
    names = sorted({name for line in (job / "_job/pieces.jsonl").open() for name in json.loads(line)["names"]})
    return known(captune.Library(job, create=True, **options), [photos / Path(name).name for name in names])
