"""A folder of photos captioned from file to text, by `captune caption`'s own stream and by a careful plain loop.

    python benchmarks/bench_folder.py [--photos 48] [--threads 2] [--beams 5]

BLIP base, 384 pixels, random weights, 20 tokens a caption, batches of 8. The other side opens with Pillow, prepares
with `BlipImageProcessorPil` and calls `generate` in inference mode, batch by batch; wall seconds, in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from bench import Bench
from blip_base import TYPES, blip_base
from captune.core.options import GenerationOptions
from captune.inference.captioning import caption_stream
from captune.inference.torch_model import TorchModel
from machine import paired, wall_seconds
from photos import photos


def main() -> None:
    bench = Bench("folder", __doc__, "transformers", ("captune", "torch", "transformers", "pillow"), repeats=1)
    bench.parser.add_argument("--photos", type=int, default=48)
    bench.parser.add_argument("--beams", type=int, default=5)
    asked = bench.begin()
    files, beams = photos(asked.photos if not asked.quick else 8), asked.beams
    torch.set_num_threads(max(asked.threads))
    for theirs_in, ours_in in (("fp32", "fp32"), ("bf16", "bf16"), ("fp32", "bf16")):
        theirs, _ = _ways(files, TYPES[theirs_in], beams)
        _, ours = _ways(files, TYPES[ours_in], beams)
        label = f"{max(asked.threads)} threads, {beams} beams, {theirs_in} against captune in {ours_in}"
        bench.row(label, paired(theirs, ours, asked.repeats, wall_seconds))
    bench.end()


def _ways(files: list[Path], dtype: torch.dtype, beams: int) -> tuple[Callable[[], object], Callable[[], object]]:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    blip = blip_base(dtype)
    processor = BlipImageProcessorPil(
        size={"height": 384, "width": 384}, image_mean=list(blip.pixels.mean), image_std=list(blip.pixels.std)
    )
    options = GenerationOptions(num_beams=beams, max_new_tokens=20, min_new_tokens=20)

    @torch.inference_mode()
    def theirs() -> object:
        said = []
        for start in range(0, len(files), 8):
            images = [Image.open(path).convert("RGB") for path in files[start : start + 8]]
            pixels = processor(images, return_tensors="pt")["pixel_values"].to(dtype)
            ids = blip.model.generate(
                pixel_values=pixels, num_beams=beams, do_sample=False, max_new_tokens=20, min_new_tokens=20
            )
            said += blip.tokenizer.batch_decode(ids % len(blip.tokenizer), skip_special_tokens=True)
        return said

    def ours() -> object:
        return list(caption_stream(TorchModel(blip), ((path, str(path)) for path in files), options))

    return theirs, ours


if __name__ == "__main__":
    main()
