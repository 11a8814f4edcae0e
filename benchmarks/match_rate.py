"""How many images a second of a processor core becomes vectors: `captune embed` with dual encoders of real sizes.

    python benchmarks/match_rate.py [--photos 64] [--repeats 3]

Random weights, fp32, one thread, photos of about 500 × 375 pixels from JPEG file to vector. Seconds are those of the
processor, so that other work on the machine counts little; the best of the repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from captune.images.batches import read_pixels
from captune.inference.match import embed_images
from captune.models.backbone import PixelSettings
from captune.models.dual_encoder import DualEncoder
from machine import machine
from photos import photos

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BASE_16 = {"image_size": 224, "patch_size": 16}
MODELS: dict[str, tuple[Callable[[], Any], PixelSettings]] = {
    "CLIP ViT-B/32, 224 pixels": (
        lambda: CLIPModel(CLIPConfig(projection_dim=512)), PixelSettings(224, shorter=224, mean=MEAN, std=STD),
    ),
    "SigLIP ViT-B/16, 224 pixels": (
        lambda: SiglipModel(SiglipConfig(vision_config=BASE_16)), PixelSettings(224, mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    files = [str(path) for path in photos(chosen.photos)]
    print(machine("captune", "torch", "transformers", "pillow"))
    for name, (model, pixels) in MODELS.items():
        matcher = DualEncoder(model().eval(), None, pixels)
        reading = best(lambda pixels=pixels: [read_pixels(file, pixels) for file in files], chosen.repeats)
        whole = best(partial(embed_images, matcher, files, name), chosen.repeats)
        millions = sum(each.numel() for each in matcher.model.parameters()) / 1e6
        print(
            f"{name} ({millions:.0f} million parameters): {len(files) / whole:.1f} images a second and core, "
            f"{reading / whole:.0%} of it reading and resizing"
        )


def best(work: Callable[[], object], repeats: int) -> float:
    """Processor seconds of the fastest of so many runs."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
