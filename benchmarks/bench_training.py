"""Part of an epoch by captune against plain `transformers` as a careful user writes it, vision part frozen.

    python benchmarks/bench_training.py [--threads 2] [--repeats 2] [--pictures 8]

BLIP base, 384 pixels, random weights; photos with 5 captions of 9 to 16 tokens. From the files to the updated
weights: loader, forward, backward, clipping and AdamW for each 20 captions; wall seconds in turn. The other side
trains a (image, caption) pair a row, 10 rows at a time with dynamic padding and accumulated gradients (which is
quicker here than 4 or 20), pixels by `BlipImageProcessorPil`, AdamW as torch makes it. captune's are its own loader,
its own forward pass and the optimizer it asks for: 4 images with all their captions a step. Building the cache
of features is not counted: it costs one pass of the vision part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

from bench import Bench
from blip_base import END, START, TYPES, blip_base
from captune.core.records import ImageRecord
from captune.inference.batches import Augmentation, CaptionDataset, EpochOrder, TrainingExample, training_loader
from captune.inference.features import cached_features
from captune.models.backbone import Encoded
from captune.models.blip import Blip
from captune.training.loop.trainer import TrainingModule
from machine import paired, wall_seconds
from photos import photos

CAPTIONS, ROWS, GROUP = 5, 10, 4


def main() -> None:
    bench = Bench("training", __doc__, "transformers", ("captune", "torch", "transformers", "pillow"), repeats=2)
    bench.parser.add_argument("--pictures", type=int, default=8)
    asked = bench.begin()
    examples = _examples(asked.pictures if not asked.quick else GROUP)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAPTUNE_CACHE"] = folder
        for threads in asked.threads:
            torch.set_num_threads(threads)
            for name, dtype in TYPES.items():
                plain = _plain(examples, dtype)
                for way, cached in (("grouped", False), ("grouped, cached features", True)):
                    label = f"{threads} threads, {name}{' autocast' * (name == 'bf16')}, {way}"
                    bench.row(label, paired(plain, _grouped(examples, dtype, cached), asked.repeats, wall_seconds))
    bench.end()


def _examples(pictures: int) -> list[TrainingExample]:
    chance = torch.Generator().manual_seed(0)

    def caption() -> Encoded:
        words = int(torch.randint(7, 15, (), generator=chance))
        return Encoded((START, *torch.randint(1000, 30000, (words,), generator=chance).tolist(), END), 1)

    return [
        TrainingExample(ImageRecord(str(n), str(path), ("a",) * CAPTIONS), tuple(caption() for _ in range(CAPTIONS)))
        for n, path in enumerate(photos(pictures))
    ]


def _model() -> tuple[Blip, list[torch.nn.Parameter]]:
    blip = blip_base(torch.float32)
    blip.freeze(["vision"])
    blip.model.train()
    return blip, [p for p in blip.model.parameters() if p.requires_grad]


def _plain(examples: list[TrainingExample], dtype: torch.dtype) -> Callable[[], None]:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    blip, learned = _model()
    processor = BlipImageProcessorPil(
        size={"height": 384, "width": 384}, image_mean=list(blip.pixels.mean), image_std=list(blip.pixels.std)
    )
    optimizer = torch.optim.AdamW(learned, lr=1e-5)
    pairs = [(example.record.image, one) for example in examples for one in example.references]

    def together(batch: list[tuple[str, Encoded]]) -> dict[str, torch.Tensor]:
        width = max(len(one.tokens) for _, one in batch)
        ids = torch.tensor([[*one.tokens, *[0] * (width - len(one.tokens))] for _, one in batch])
        mask = torch.tensor([[1] * len(one.tokens) + [0] * (width - len(one.tokens)) for _, one in batch])
        images = [Image.open(Path(image)).convert("RGB") for image, _ in batch]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        labels = ids.masked_fill(mask == 0, -100)
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask, "labels": labels}

    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(pairs, batch_size=ROWS, shuffle=True, generator=generator, collate_fn=together)  # type: ignore[arg-type]
    parts = CAPTIONS * GROUP // ROWS

    def epoch() -> None:
        for number, batch in enumerate(loader, 1):
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                loss = blip.model(**batch).loss
            (loss / parts).backward()
            if number % parts == 0:
                torch.nn.utils.clip_grad_norm_(learned, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    return epoch


def _grouped(examples: list[TrainingExample], dtype: torch.dtype, cached: bool) -> Callable[[], None]:
    blip, learned = _model()
    optimizer = torch.optim.AdamW(learned, lr=1e-5, fused=True)
    module = TrainingModule(blip)
    images = [example.record.image for example in examples]
    features = cached_features(blip, images, autocast=dtype) if cached else None
    data = CaptionDataset(examples, blip.pixels, Augmentation(0, 0.0, 0.0, 0.0), features)
    loader = training_loader(data, EpochOrder(len(examples), 0), GROUP, 0, blip.pad_token_id)

    def epoch() -> None:
        for batch in loader:
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                losses = module(**batch)
            (losses["objective"] / batch["lengths"].sum()).backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return epoch


if __name__ == "__main__":
    main()
