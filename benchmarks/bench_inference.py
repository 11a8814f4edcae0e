"""Captioning by captune against `transformers`' generate as a careful user writes it: batched, inference mode.

    python benchmarks/bench_inference.py [--threads 1 2] [--repeats 3] [--tokens 20]

BLIP base, 384 pixels, random weights; wall seconds from pixels to tokens, every caption of the same length, the
two in turn. "of peak" is captune's share of what one large matrix product reaches on this machine in that type.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from blip_base import CROSS, TOKEN, VISION, blip_base, peak
from captune.core.options import GenerationOptions
from captune.engine.decoding import generate
from captune.models.blip import Blip
from machine import machine, markdown, paired, wall_seconds

SIZES = ((1, 1), (1, 5), (8, 1), (8, 5))
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--memory", choices=("captune", "transformers"), help="Print the peak of one way and end.")
    asked = parser.parse_args()
    if asked.memory:
        _memory(asked.memory, asked.tokens)
        return
    print(machine("captune", "torch", "transformers"))
    rows = [row for threads in dict.fromkeys(asked.threads) for row in _rows(threads, asked.repeats, asked.tokens)]
    print("\n" + markdown(("", "transformers", "captune", "ratio", "spread", "of peak"), rows))
    print("\nLargest memory, fp32, 8 pictures, 5 beams (the model's weights are 0.9 GB):")
    for way in ("transformers", "captune"):
        subprocess.run([sys.executable, __file__, "--memory", way, "--tokens", str(asked.tokens)], check=True)


def _rows(threads: int, repeats: int, tokens: int) -> list[tuple[str, ...]]:
    torch.set_num_threads(threads)
    found = []
    plain = blip_base(torch.float32)
    for name, dtype in TYPES.items():
        blip, most = blip_base(dtype), peak(dtype)
        for pictures, beams in SIZES:
            theirs, ours = _ways(blip, dtype, pictures, beams, tokens)
            label = f"{threads} threads, {name}, {pictures} pictures, {beams} beams"
            found.append(_row(label, theirs, ours, repeats, pictures, beams * tokens, most))
    theirs, _ = _ways(plain, torch.float32, 8, 5, tokens)
    label = f"{threads} threads, captune's bf16 against fp32, 8 pictures, 5 beams"
    return [*found, _row(label, theirs, ours, repeats, 8, 5 * tokens, most)]


def _row(
    label: str,
    theirs: Callable[[], object],
    ours: Callable[[], object],
    repeats: int,
    pictures: int,
    tokens: int,
    most: float,
) -> tuple[str, ...]:
    both = paired(theirs, ours, repeats, wall_seconds)
    work = pictures * (VISION + CROSS + TOKEN * tokens)
    share = f"{100 * work / min(both.second) / most:.0f} %"
    print(" | ".join([*both.row(label), share]), flush=True)
    return (*both.row(label), share)


def _ways(
    blip: Blip, dtype: torch.dtype, pictures: int, beams: int, tokens: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    pixels = torch.randn(pictures, 3, 384, 384, generator=torch.Generator().manual_seed(1)).to(dtype)
    options = GenerationOptions(num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)

    @torch.inference_mode()
    def theirs() -> object:
        return blip.model.generate(
            pixel_values=pixels, num_beams=beams, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens
        )

    @torch.inference_mode()
    def ours() -> object:
        return generate(blip, blip.encode(pixels), options)

    return theirs, ours


def _memory(way: str, tokens: int) -> None:
    theirs, ours = _ways(blip_base(torch.float32), torch.float32, 8, 5, tokens)
    (theirs if way == "transformers" else ours)()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(f"  {way}: {int(status.split('VmHWM:')[1].split()[0]) / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
