"""From photo files to a model's pixels: captune's two ways against Pillow and `BlipImageProcessorPil`.

    python benchmarks/bench_pictures.py [--photos 160] [--repeats 3]

One thread, wall seconds for all photos, in turn. The exact way gives the same pixels bit for bit; the fast one
differs as printed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench import Bench
from captune.images.batches import read_pixels
from captune.models.backbone import PixelSettings
from machine import paired, wall_seconds
from photos import photos


def main() -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    packages = ("captune", "torch", "transformers", "pillow", "simplejpeg")
    bench = Bench("pictures", __doc__, "transformers", packages, repeats=3)
    bench.parser.add_argument("--photos", type=int, default=160)
    asked = bench.begin()
    torch.set_num_threads(1)
    files = photos(asked.photos)
    processor = BlipImageProcessorPil()
    exact = PixelSettings(384, mean=processor.image_mean, std=processor.image_std)
    fast = replace(exact, fast=True)

    def theirs() -> object:
        return [processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"] for path in files]

    for name, settings in (("exact", exact), ("fast", fast)):
        ours = partial(_ours, files, settings)
        both = paired(theirs, ours, asked.repeats, wall_seconds)
        bench.row(f"{name}, {len(files)} photos", both)
        print(f"  {len(files) / min(both.first):.0f} and {len(files) / min(both.second):.0f} images a second")
    bench.end()
    apart = [np.abs(read_pixels(path, exact).astype(int) - read_pixels(path, fast)) for path in files]
    largest = sorted(Counter(int(each.max()) for each in apart).items())
    print(f"\nfast against exact: {100 * np.mean([(each > 0).mean() for each in apart]):.2f} % of the values differ;")
    print("largest difference of a photo: " + ", ".join(f"{n} photos {level} of 255" for level, n in largest))


def _ours(files: list[Path], settings: PixelSettings) -> list[torch.Tensor]:
    """Normalised, as the other side's are."""
    return [settings.normalise(torch.from_numpy(read_pixels(path, settings))) for path in files]


if __name__ == "__main__":
    main()
