"""Captioning by captune against `transformers`' generate as a careful user writes it: batched, inference mode.

    python benchmarks/bench_inference.py [--threads 1 2] [--repeats 3] [--tokens 20]

BLIP base, 384 pixels, random weights; wall seconds from pixels to tokens, every caption of the same length, the
two in turn. "of peak" is captune's share of what one large matrix product reaches on this machine in that type.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from bench import Bench
from blip_base import CROSS, TOKEN, TYPES, VISION, blip_base, peak
from captune.core.options import GenerationOptions
from captune.models.blip import Blip
from captune.models.generate import generate
from machine import paired, wall_seconds

SIZES = ((1, 1), (1, 5), (8, 1), (8, 5))


def main() -> None:
    bench = Bench("inference", __doc__, "transformers", ("captune", "torch", "transformers"), repeats=3)
    bench.parser.add_argument("--tokens", type=int, default=20)
    bench.parser.add_argument(
        "--memory", choices=("captune", "transformers"), help="Print the peak of one way and end."
    )
    asked = bench.parser.parse_args()
    if asked.memory:
        _memory(asked.memory, asked.tokens)
        return
    bench.begin()
    for threads in asked.threads if not asked.quick else [max(asked.threads)]:
        _rows(bench, threads, asked.tokens)
    bench.end()
    if not asked.quick:
        print("\nLargest memory, fp32, 8 images, 5 beams (the model's weights are 0.9 GB):")
        for way in ("transformers", "captune"):
            subprocess.run([sys.executable, __file__, "--memory", way, "--tokens", str(asked.tokens)], check=True)


def _rows(bench: Bench, threads: int, tokens: int) -> None:
    torch.set_num_threads(threads)
    repeats = bench.asked.repeats

    def row(name: str, theirs: Callable[[], object], ours: Callable[[], object], pictures: int, beams: int) -> None:
        work = pictures * (VISION + CROSS + TOKEN * beams * tokens)
        label = f"{threads} threads, {name}, {pictures} × {beams}"
        bench.row(label, paired(theirs, ours, repeats, wall_seconds), work=work, peak=most)

    for name, dtype in TYPES.items():
        blip, most = blip_base(dtype), peak(dtype)
        for pictures, beams in SIZES if not bench.asked.quick else SIZES[-1:]:
            theirs, ours = _ways(blip, dtype, pictures, beams, tokens)
            row(name, theirs, ours, pictures, beams)
    plain, _ = _ways(blip_base(torch.float32), torch.float32, 8, 5, tokens)
    row("captune in bf16 against fp32", plain, ours, 8, 5)


def _ways(
    blip: Blip, dtype: torch.dtype, pictures: int, beams: int, tokens: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    seen = torch.randint(0, 256, (pictures, 3, 384, 384), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    pixels = blip.pixels.normalise(seen).to(dtype)
    options = GenerationOptions(num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)

    @torch.inference_mode()
    def theirs() -> object:
        return blip.model.generate(
            pixel_values=pixels, num_beams=beams, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens
        )

    @torch.inference_mode()
    def ours() -> object:
        return generate(blip, blip.image_features(seen), options)

    return theirs, ours


def _memory(way: str, tokens: int) -> None:
    theirs, ours = _ways(blip_base(torch.float32), torch.float32, 8, 5, tokens)
    (theirs if way == "transformers" else ours)()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(f"  {way}: {int(status.split('VmHWM:')[1].split()[0]) / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
