"""How often captions in bf16 are those of fp32: captune's search and `transformers`' own, on the same weights.

    python benchmarks/agreement.py [--photos 24]

BLIP base, 384 pixels, random weights; the first 16 tokens of each photo's caption, greedy and with 5 beams.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

from blip_base import START, blip_base
from captune.core.options import GenerationOptions
from captune.images.batches import read_pixels
from captune.models.blip import Blip
from captune.models.generate import search_tokens
from machine import machine, markdown
from photos import photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=24)
    asked = parser.parse_args()
    print(machine("captune", "torch", "transformers"))
    exact, rounded = blip_base(torch.float32), blip_base(torch.bfloat16)
    seen = np.stack([read_pixels(path, exact.pixels) for path in photos(asked.photos)])
    rows = []
    for beams in (1, 5):
        options = GenerationOptions(num_beams=beams, max_new_tokens=16)
        right = _said(exact, seen, options)
        print(f"{beams} beams: {len(set(right))} different captions of {len(right)} photos in fp32", flush=True)
        plain = _said(replace(rounded, own_search=False), seen, options)
        ours = _said(rounded, seen, options)
        counts = [sum(a == b for a, b in zip(right, said, strict=True)) for said in (plain, ours)]
        rows.append((f"{beams} beams", *(f"{count} of {len(right)}" for count in counts)))
    print("\n" + markdown(("as in fp32", "transformers in bf16", "captune in bf16"), rows))


def _said(blip: Blip, seen: np.ndarray, options: GenerationOptions) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    with torch.inference_mode():
        for some in np.array_split(seen, -(-len(seen) // 8)):
            memory, prompts = blip.image_features(torch.from_numpy(some)), torch.full((len(some), 1), START)
            written = search_tokens(blip, memory, prompts, options)
            found += [tuple(each[0]) for each in written.tokens.tolist()]
    return found


if __name__ == "__main__":
    main()
