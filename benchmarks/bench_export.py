"""Exports against torch in fp32: captions, size on disk, time of an image; families x targets.

    python benchmarks/bench_export.py [--size base] [--families blip clip-gpt2 git] [--threads 2] [--pictures 16]

Models from scratch with random weights, enlarged until images decide what is said ("said" counts the different
captions), 8,000 tokens, captions of 20 tokens. Each way runs in turn with torch in fp32: wall ms of an image, and
how many times as fast as torch in fp32 of the same turn. "same" is the share of captions, greedy and with 5 beams,
that are those of torch in fp32.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.datasets.scenes import evaluation_scenes, render_scene
from captune.export import EXPORTERS
from captune.export.graphs import describe, graphs_of, write_tokenizer
from captune.images.batches import read_pixels
from captune.inference.runtime import ExportedModel
from captune.inference.torch_model import TorchModel
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from machine import machine, markdown

EXPORTED = ("blip", "clip-gpt2", "git")
# How much larger random weights have to be for captions to differ from image to image.
LARGER = 3.0
TOKENS = 20
SEED, CALIBRATION_SEED = 5, 6
SHAPES = ((1, 1), (1, 5), (8, 1), (8, 5))
Says = Callable[[np.ndarray, GenerationOptions], list[list[Caption]]]


@dataclass(frozen=True)
class Way:
    """A name, megabytes on disk, and what captions pixels (images, 3, size, size)."""

    name: str
    megabytes: float
    says: Says

    def caption(self, pixels: np.ndarray, beams: int) -> list[tuple[int, ...]]:
        """Tokens of the best caption of each picture."""
        options = GenerationOptions(num_beams=beams, max_new_tokens=TOKENS, min_new_tokens=TOKENS)
        return [captions[0].tokens for captions in self.says(pixels, options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--families", nargs="+", default=list(EXPORTED))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pictures", type=int, default=16, help="Images whose captions are compared.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="Small models, once.")
    asked = parser.parse_args()
    if asked.quick:
        asked.size, asked.repeats = "small", 1
    torch.set_num_threads(asked.threads)
    print(machine("captune", "torch", "onnxruntime", "openvino"), f"{asked.threads} threads, size {asked.size}")
    rows: list[tuple[str, ...]] = []
    for family in asked.families:
        backbone = lively(family, asked.size)
        seen = scenes(backbone, max(8, asked.pictures), SEED)
        with tempfile.TemporaryDirectory() as made:
            rows += measured(ways(backbone, Path(made), asked.threads), np.stack(seen), asked.repeats)
    columns = ("", "MB", "said", "same", *(f"{n} × {beams}" for n, beams in SHAPES))
    print("\nms of an image (× torch fp32); images × beams\n\n" + markdown(columns, rows))


def scenes(backbone: Backbone, count: int, seed: int) -> list[np.ndarray]:
    """Pixels (3, size, size) of drawn pictures."""
    drawn = (render_scene(scene, backbone.pixels.size) for scene in evaluation_scenes(count, seed=seed))
    return [read_pixels(image, backbone.pixels) for image in drawn]


def lively(family: str, size: str) -> Backbone:
    """A model from scratch whose weights are so large that it looks at its picture."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(2, 9))) for _ in range(9000)]
    texts = [" ".join(chance.choices(words, k=12)) for _ in range(6000)]
    torch.manual_seed(0)
    backbone: Backbone = FAMILIES[family].new(size, texts)
    backbone.model.eval()
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name and ".wte" not in name and ".wpe" not in name:
                parameter.mul_(LARGER)
    return backbone


def ways(backbone: Backbone, folder: Path, threads: int) -> list[Way]:
    """Torch in fp32 first, then torch in bf16 and every target in fp32, int8, and int8 calibrated on other pictures."""
    weights = sum(p.numel() for p in backbone.model.parameters())
    found = [Way(f"{backbone.family}, torch fp32", 4 * weights / 1e6, in_torch(backbone))]
    half = replace(backbone, model=copy.deepcopy(backbone.model).to(torch.bfloat16))
    found.append(Way(f"{backbone.family}, torch bf16", 2 * weights / 1e6, in_torch(half)))
    graphs = graphs_of(backbone)
    for to, target in EXPORTERS.items():
        for name in ("fp32", "int8", "int8 calibrated"):
            here, precision = folder / f"{to}-{name}", name[:4]
            here.mkdir()
            write_tokenizer(backbone.tokenizer, here)
            looked = scenes(backbone, 32, CALIBRATION_SEED) if name == "int8 calibrated" else ()
            target.write(graphs, here, int8=precision == "int8", calibration=looked)
            describe(backbone, graphs, model="new", target=to, precision=precision, opset=target.OPSET).write(here)
            model = ExportedModel.load(here, threads=threads)
            found.append(Way(f"{backbone.family}, {to} {name}", model.weights / 1e6, model.generate))
    return found


def in_torch(backbone: Backbone) -> Says:
    return lambda pixels, options: TorchModel(backbone).generate(pixels, options)


def measured(all_ways: Sequence[Way], pixels: np.ndarray, repeats: int) -> list[tuple[str, ...]]:
    """A row for each way; the first is what the others are compared with."""
    first = all_ways[0]
    expected = [first.caption(pixels, beams) for beams in (1, 5)]
    rows = []
    for way in all_ways:
        found = [way.caption(pixels, beams) for beams in (1, 5)]
        same = [a == b for mine, theirs in zip(found, expected, strict=True) for a, b in zip(mine, theirs, strict=True)]
        cells = []
        for images, beams in SHAPES:
            milliseconds, ratio = timed(first, way, pixels[:images], beams, repeats)
            cells.append(f"{milliseconds:.0f}" + ("" if way is first else f" ({ratio:.2f})"))
        row = (way.name, f"{way.megabytes:.0f}", f"{len(set(found[0]))}", f"{statistics.mean(same):.0%}", *cells)
        print(" | ".join(row), flush=True)
        rows.append(row)
    return rows


def timed(first: Way, way: Way, pixels: np.ndarray, beams: int, repeats: int) -> tuple[float, float]:
    """Median wall ms of an image, and the median of how many times as fast as `first`, run in turn."""
    way.caption(pixels, beams)
    mine, ratios = [], []
    for _ in range(repeats):
        seconds = []
        for each in (first, way):
            started = time.perf_counter()
            each.caption(pixels, beams)
            seconds.append(time.perf_counter() - started)
        mine.append(1000 * seconds[1] / len(pixels))
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(mine), statistics.median(ratios)


if __name__ == "__main__":
    main()
