"""Photos to measure with: real ones where they are at hand, else drawn ones of the same size."""

from __future__ import annotations

import tarfile
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from captune.datasets.scenes import write_flickr8k_folder
from coco_captions import DATA


def small_photos(folder: Path, count: int) -> None:
    """A folder of so many different images: Flickr8k's of 128 pixels, or drawn scenes."""
    archive = DATA / "flickr8k" / "images-128.tar"
    if not archive.is_file():
        write_flickr8k_folder(folder, train=count, dev=0, test=0)
        return
    folder.mkdir()
    with tarfile.open(archive) as members:
        for member in islice((one for one in members if one.isfile()), count):
            data = members.extractfile(member)
            assert data is not None, "it is a file"
            (folder / Path(member.name).name).write_bytes(data.read())


def photos(count: int) -> list[Path]:
    """Paths of JPEG files of about 500 × 375 pixels."""
    found = sorted((DATA / "flickr8k/original").glob("*.jpg"))
    if not found:
        folder = Path(tempfile.mkdtemp(prefix="captune-bench-"))
        chance = np.random.default_rng(0)
        for number in range(min(count, 64)):
            coarse = Image.fromarray(chance.integers(0, 256, (48, 63, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:03}.jpg", quality=90)
        found = sorted(folder.glob("*.jpg"))
        print("drawn photos: set CAPTUNE_TEST_DATA for real ones")
    return (found * (1 + count // len(found)))[:count]
