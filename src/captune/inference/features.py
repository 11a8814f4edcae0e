"""Features of images from a frozen vision part, cached on disk: bf16, memory-mapped, shared between runs.

A store belongs to one vision part (its weights, its pixels, the number type it runs in);
in it an image is known by its content. It grows by whole parts of at most `PART`
images: a part counts when both its list of images and its features are there. Features of one
length are an array (`.npy`), those of images in their own aspect rows one behind the other (`.bin`).
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captune.core.errors import CaptuneError
from captune.core.files import cache_folder, disk_error, scratch_folder, write_json
from captune.core.files.limits import parse_json
from captune.core.machine import LESS_MEMORY, Halving, OutOfMemory, is_disk_full
from captune.core.progress import SILENT, Progress, Task, track
from captune.images.batches import stack, stream_pixels
from captune.models.backbone import Backbone

PART = 1024
# Images of which the size of all is judged, where each has its own.
SAMPLE = 8
# Left free on the disk whatever is cached.
SPARE = 1 << 30


@dataclass(frozen=True)
class CachedFeatures:
    """Features of images by the name of their file: `features[image]` is (length, width), bf16 as uint16.

    Or what a family makes of an image in its own aspect: (values,), uint16.
    """

    rows: dict[str, tuple[np.ndarray, int | slice]]

    def __contains__(self, image: object) -> bool:
        return image in self.rows

    def __getitem__(self, image: str) -> np.ndarray:
        part, row = self.rows[image]
        return np.array(part[row]) if isinstance(row, slice) else part[row]


def cached_features(
    backbone: Backbone,
    images: Sequence[str],
    *,
    autocast: torch.dtype | None = None,
    batch_size: int = 16,
    part_size: int = PART,
    spare: int = SPARE,
    progress: Progress = SILENT,
) -> CachedFeatures:
    """Features of images, made where the store does not have them yet.

    Reports their size first, and leaves `spare` bytes of the disk free. Raises `CaptuneError` where the
    disk has no room for them or an image cannot be read.
    """
    names = list(dict.fromkeys(images))
    with ThreadPoolExecutor() as pool:
        read = track(pool.map(_digest, names), progress, "Reading images", len(names))
        digests = dict(zip(names, read, strict=True))
    with torch.autocast(backbone.device.type, autocast, enabled=autocast not in (None, torch.float32)):
        folder = cache_folder() / "features" / _store_name(backbone)
        folder.mkdir(parents=True, exist_ok=True)
        stored = _stored(folder)
        missing = list({digests[name]: name for name in names if digests[name] not in stored}.values())
        if missing:
            _check_room(backbone, folder, missing, spare, progress)
            with progress.task("Caching features", len(missing)) as task:
                for start in range(0, len(missing), part_size):
                    some = missing[start : start + part_size]
                    _write_part(backbone, folder, {digests[name]: name for name in some}, batch_size, spare, task)
            stored = _stored(folder)
    return CachedFeatures({name: stored[digests[name]] for name in names})


def _digest(image: str) -> str:
    """A digest of an image's file, in 128 bits."""
    try:
        return blake2b(Path(image).read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise CaptuneError(
            f"A training image cannot be read any more: {image} ({error.strerror}).",
            "Run `captune prepare` again with --on-bad skip.",
        ) from None


def _store_name(backbone: Backbone) -> str:
    """The name of the store of this vision part."""
    digest = blake2b(digest_size=16)
    parts = backbone.parts()
    for parameter in (parameter for part in backbone.encoding_parts for parameter in parts[part]):
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    names = ("size", "mean", "std", "resample", "shorter", "fast")  # in the order of version 0.1.0
    pixels = ", ".join(f"{name}={getattr(backbone.pixels, name)!r}" for name in names)
    digest.update(f"({backbone.family!r}, PixelSettings({pixels}), '{backbone.compute_dtype}')".encode())
    digest.update(backbone.feature_settings.encode())
    return f"{backbone.family}-{digest.hexdigest()}"


def _stored(folder: Path) -> dict[str, tuple[np.ndarray, int | slice]]:
    """Where the features of each image are, by digest; parts that are not whole do not count."""
    stored: dict[str, tuple[np.ndarray, int | slice]] = {}
    for listed in sorted(folder.glob("*.json")):
        try:
            found = parse_json(listed.read_text(encoding="utf-8"))
            digests, lengths = found["pictures"], found.get("lengths")
            if lengths is None:
                part = np.load(listed.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            else:
                part = np.memmap(listed.with_suffix(".bin"), np.uint16, mode="r")
            rows = range(len(digests)) if lengths is None else _slices(lengths)
            whole = part.dtype == np.uint16 and len(part) == (len(digests) if lengths is None else sum(lengths))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if whole and len(rows) == len(digests):
            stored |= {digest: (part, row) for digest, row in zip(digests, rows, strict=True)}
    return stored


def _slices(lengths: Sequence[int]) -> list[slice]:
    """Where rows of these lengths are that stand one behind the other."""
    ends = list(accumulate(lengths))
    return [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]


def _check_room(backbone: Backbone, folder: Path, missing: Sequence[str], spare: int, progress: Progress) -> None:
    """Say how large the features will be; stop where the disk is too small."""
    exact = bool(backbone.pixels.size)
    sizes = [row.nbytes for row in _features(backbone, missing[: 1 if exact else SAMPLE])]
    size = len(missing) * sum(sizes) // len(sizes)
    about = "" if exact else "about "
    progress.info(f"Features of {len(missing):,} images take {about}{size / 1e9:.2f} GB in {folder}.")
    _check_free(folder, size, spare)


def _check_free(folder: Path, size: int, spare: int) -> None:
    free = shutil.disk_usage(folder).free - spare
    if size > free:
        raise CaptuneError(
            f"There is no room for them: {max(0, free) / 1e9:.2f} GB can be used there.",
            "Name another place with CAPTUNE_CACHE, delete old stores, or train without --cache-features.",
        )


def _features(backbone: Backbone, images: Iterable[str]) -> list[np.ndarray]:
    """Features of each image of a batch, in order."""
    batch: list[np.ndarray] = []
    for _, pixels in stream_pixels(((None, image) for image in images), backbone.pixels):
        if isinstance(pixels, CaptuneError):
            raise pixels
        batch.append(pixels)

    def compute(start: int, end: int) -> list[np.ndarray]:
        with torch.inference_mode():
            return backbone.stored_features(backbone.image_features(stack(batch[start:end])))

    features = [each for each in Halving(LESS_MEMORY).results(len(batch), compute) if each is not None]
    if len(features) < len(batch):
        raise OutOfMemory("There is not memory enough for the features of one image.", LESS_MEMORY)
    return features


def _reserve(file: Path) -> None:
    """Allocate the whole file: writing a page of a sparse one on a full disk ends the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        try:
            with open(file, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
        except OSError as error:
            if is_disk_full(error):
                raise disk_error(error, file) from error
            # A file system that cannot promise room.


def _write_part(
    backbone: Backbone, folder: Path, images: dict[str, str], batch_size: int, spare: int, task: Task
) -> None:
    """Write a part with the features of some images, given by digest; whole or not at all."""
    name, names = f"{time.time_ns()}-{os.getpid()}", list(images.values())

    def batches() -> Iterator[list[np.ndarray]]:
        for start in range(0, len(names), batch_size):
            rows = _features(backbone, names[start : start + batch_size])
            yield rows
            task.advance(len(rows))

    with scratch_folder(folder) as made:
        listed: dict[str, Any] = {"pictures": list(images)}
        if backbone.pixels.size:
            temporary = made / "part.npy"
            _write_array(temporary, len(names), batches())
        else:
            temporary = made / "part.bin"
            listed["lengths"] = _write_rows(temporary, batches(), spare)
        # The list first: without its features it counts for nothing, and it is small.
        write_json(folder / f"{name}.json", listed)
        os.replace(temporary, folder / f"{name}{temporary.suffix}")


def _write_array(file: Path, count: int, batches: Iterable[list[np.ndarray]]) -> None:
    """Write features of one shape as an array with a row for each of `count` images."""
    written: np.memmap | None = None
    start = 0
    for rows in batches:
        if written is None:
            written = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint16, shape=(count, *rows[0].shape))
            _reserve(file)
        written[start : start + len(rows)] = rows
        start += len(rows)
    assert written is not None
    written.flush()


def _write_rows(file: Path, batches: Iterable[list[np.ndarray]], spare: int) -> list[int]:
    """Write rows one behind the other; returns their lengths. What they take is not known before."""
    lengths: list[int] = []
    try:
        with open(file, "wb") as opened:
            for rows in batches:
                _check_free(file.parent, sum(row.nbytes for row in rows), spare)
                for row in rows:
                    opened.write(row.data)
                    lengths.append(len(row))
    except OSError as error:
        raise disk_error(error, file) from error
    return lengths
