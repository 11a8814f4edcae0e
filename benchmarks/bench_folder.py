"""A folder of photos captioned from file to text, by `captune caption`'s own stream and by a careful plain loop.

    python benchmarks/bench_folder.py [--photos 48] [--threads 2] [--beams 3]

BLIP base, 384 pixels, random weights, 20 tokens a caption, batches of 8. The other side opens with Pillow, prepares
with `BlipImageProcessorPil` and calls `generate` in inference mode, batch by batch; wall seconds, in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from blip_base import blip_base
from captune.core.options import GenerationOptions
from captune.engine.captioning import caption_stream
from coco_captions import DATA
from machine import machine, markdown, paired, wall_seconds

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    photos = sorted((DATA / "flickr8k/original").glob("*.jpg"))[: asked.photos]
    if not photos:
        sys.exit(f"There are no photos in {DATA}/flickr8k/original: set CAPTUNE_TEST_DATA.")
    torch.set_num_threads(asked.threads)
    print(machine("captune", "torch", "transformers", "pillow"))
    rows = []
    for theirs_in, ours_in in (("fp32", "fp32"), ("bf16", "bf16"), ("fp32", "bf16")):
        theirs, _ = _ways(photos, TYPES[theirs_in], asked.beams)
        _, ours = _ways(photos, TYPES[ours_in], asked.beams)
        both = paired(theirs, ours, asked.repeats, wall_seconds)
        rows.append(both.row(f"{len(photos)} photos, {asked.beams} beams, {theirs_in} against captune in {ours_in}"))
        print(" | ".join(rows[-1]), flush=True)
    print("\n" + markdown(("", "transformers", "captune", "ratio", "spread"), rows))


def _ways(photos: list[Path], dtype: torch.dtype, beams: int) -> tuple[Callable[[], object], Callable[[], object]]:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    blip = blip_base(dtype)
    processor = BlipImageProcessorPil(
        size={"height": 384, "width": 384}, image_mean=list(blip.pixels.mean), image_std=list(blip.pixels.std)
    )
    options = GenerationOptions(num_beams=beams, max_new_tokens=20, min_new_tokens=20)

    @torch.inference_mode()
    def theirs() -> object:
        said = []
        for start in range(0, len(photos), 8):
            some = photos[start : start + 8]
            pictures = [Image.open(path).convert("RGB") for path in some]
            pixels = processor(pictures, return_tensors="pt")["pixel_values"].to(dtype)
            ids = blip.model.generate(
                pixel_values=pixels, num_beams=beams, do_sample=False, max_new_tokens=20, min_new_tokens=20
            )
            said += blip.tokenizer.batch_decode(ids % len(blip.tokenizer), skip_special_tokens=True)
        return said

    def ours() -> object:
        return list(caption_stream(blip, ((path, str(path)) for path in photos), options, dtype=dtype))

    return theirs, ours


if __name__ == "__main__":
    main()
