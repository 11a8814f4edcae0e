"""How fast a job is, what share of the model's own speed it reaches, and whether its memory stays flat.

    python benchmarks/bulk_rate.py [--pictures 8091] [--size demo] [--plain 200] [--shard-size 1000]

Photos of Flickr8k (128 px) from $CAPTUNE_TEST_DATA, repeated under other names up to `--pictures`, are captioned by
`captune caption --format jsonl` in a process of its own, whose memory, with that of its decoders, is looked at twice a
second. The model's own speed is that of batches that lie in memory; the plain loop opens images, one or a batch at a
time, asks transformers' processor and `generate`, and appends lines to a file. A BLIP of random weights captions,
greedily and 10 tokens long.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from captune.inference.captioner import Captioner
from captune.models.blip import Blip
from coco_captions import DATA
from machine import machine

SEARCH = {"num_beams": 1, "max_new_tokens": 10, "min_new_tokens": 10}
BATCH = 16
TEXTS = ["a dog runs over the grass", "two people in a red car"]


def pictures(folder: Path, count: int) -> Path:
    """`count` names, in folders of 1,000, for the photos of the archive."""
    photos = folder / "photos"
    with tarfile.open(DATA / "flickr8k" / "images-128.tar") as archive:
        archive.extractall(photos, filter="data")
    originals = sorted(photos.rglob("*.jpg"))
    for number in range(count):
        place = folder / "pictures" / f"{number // 1000:04}" / f"{number:07}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], place)
    return folder / "pictures"


def model_alone(captioner: Captioner, paths: list[Path], seconds: float = 10.0) -> float:
    """Images a second of batches in memory."""
    seen = np.stack([captioner.read(path) for path in paths[:BATCH]])
    captioner.generate(seen, captioner.options.generation)
    started, done = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        captioner.generate(seen, captioner.options.generation)
        done += BATCH
    return done / (time.monotonic() - started)


def plain_loop(model: Path, paths: list[Path], out: Path, batch: int) -> float:
    """Images a second of what a user would write."""
    from transformers import AutoProcessor, BlipForConditionalGeneration

    processor, blip = AutoProcessor.from_pretrained(model), BlipForConditionalGeneration.from_pretrained(model).eval()
    started = time.monotonic()
    with out.open("a") as file:
        for first in range(0, len(paths), batch):
            some = paths[first : first + batch]
            given = processor(images=[Image.open(path).convert("RGB") for path in some], return_tensors="pt")
            with torch.no_grad():
                tokens = blip.generate(**given, num_beams=1, max_new_tokens=10, min_new_tokens=10)
            for path, caption in zip(some, processor.batch_decode(tokens, skip_special_tokens=True), strict=True):
                file.write(json.dumps({"image": str(path), "caption": caption}) + "\n")
    return len(paths) / (time.monotonic() - started)


def memory(process: psutil.Process) -> float:
    """MB of a process and its children that no other process has."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def job(folder: Path, model: Path, found: Path, count: int, shard_size: int) -> tuple[float, list[tuple[int, float]]]:
    """Images a second of a job once it captions, and memory at shards done."""
    out = folder / "captions"
    search = [word for name, value in SEARCH.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "captune", "caption", str(found), "--model", str(model), "--format", "jsonl"]
    command += ["--out", str(out), "--batch-size", str(BATCH), "--shard-size", str(shard_size), "--quiet", *search]
    process = subprocess.Popen(command)
    watched, seen = psutil.Process(process.pid), []
    first = last = (0.0, 0)
    while process.poll() is None:
        time.sleep(0.5)
        shards = len(list(out.glob("captions-*")))
        if shards and not first[1]:
            first = (time.monotonic(), shards)
        if shards > last[1]:
            last = (time.monotonic(), shards)
        seen.append((shards, memory(watched)))
    between = (last[1] - first[1]) * shard_size
    report = json.loads((out / "_job" / "report.json").read_text())
    assert (process.returncode, report["pictures"], report["failed"]) == (0, count, 0)
    return between / (last[0] - first[0]), seen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=8091)
    parser.add_argument("--size", default="demo")
    parser.add_argument("--plain", type=int, default=200, help="images for the plain loop")
    parser.add_argument("--shard-size", type=int, default=1000)
    asked = parser.parse_args()
    print(machine("captune", "torch", "transformers", "pillow"), f"{torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory(prefix="captune-rate-") as name:
        here = Path(name)
        found = pictures(here, asked.pictures)
        torch.manual_seed(0)
        Blip.new(asked.size, TEXTS).save(here / "model")
        paths = sorted(found.rglob("*.jpg"))
        captioner = Captioner.load(str(here / "model"), **SEARCH)
        alone = model_alone(captioner, paths)
        rate, seen = job(here, here / "model", found, asked.pictures, asked.shard_size)
        again = model_alone(captioner, paths)
        some = paths[: asked.plain]
        plain = [plain_loop(here / "model", some, here / "plain.jsonl", batch) for batch in (1, BATCH)]
    print(f"\nblip-{asked.size}, {asked.pictures:,} images, batches of {BATCH}")
    print(f"the model alone, before and after   {alone:8.1f}/s {again:8.1f}/s")
    share = 200 * rate / (alone + again)
    print(f"the job                             {rate:8.1f}/s  {share:.0f} % of that")
    for batch, each in zip((1, BATCH), plain, strict=True):
        print(f"transformers, {batch:2} images at a time {each:8.1f}/s  {rate / each:.1f}×")
    print("\nmemory of the job and its decoders (MB) at shards done")
    whole = max(shards for shards, _ in seen)
    for tenth in range(1, 11):
        part = [used for shards, used in seen if whole * (tenth - 1) / 10 < shards <= whole * tenth / 10]
        if part:
            print(f"{100 * tenth // 10:4} %  {min(part):6.0f} to {max(part):6.0f}")


if __name__ == "__main__":
    main()
