"""A training step by captune against plain `transformers` as a careful user writes it, vision part frozen.

    python benchmarks/bench_training.py [--threads 2] [--repeats 2]

BLIP base, 384 pixels, random weights, 4 pictures with 5 captions of 9 to 16 tokens: forward, backward, clipping and
AdamW; wall seconds in turn. The other side trains a (picture, caption) pair a row, 4 rows at a time with dynamic
padding and accumulated gradients, and torch's default AdamW; captune the same 20 pairs, grouped, and the fused one.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch

from blip_base import END, START, blip_base
from captune.engine.batches import collate
from captune.models.backbone import Encoded
from captune.models.blip import Blip
from machine import machine, markdown, paired, wall_seconds

PICTURES, CAPTIONS, ROWS = 4, 5, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    print(machine("captune", "torch", "transformers"))
    rows = []
    for threads in dict.fromkeys(asked.threads):
        torch.set_num_threads(threads)
        for name, autocast in (("fp32", False), ("bf16 autocast", True)):
            for way, cached in (("grouped", False), ("grouped, cached features", True)):
                both = paired(_plain(autocast), _grouped(autocast, cached), asked.repeats, wall_seconds)
                rows.append(both.row(f"{threads} threads, {name}, {way}"))
                print(" | ".join(rows[-1]), flush=True)
    print("\n" + markdown(("20 captions of 4 pictures", "transformers", "captune", "ratio", "spread"), rows))


def _data() -> tuple[torch.Tensor, list[list[Encoded]]]:
    chance = torch.Generator().manual_seed(0)
    pictures = torch.randn(PICTURES, 3, 384, 384, generator=chance)
    captions = [
        [_caption(torch.randint(7, 15, (), generator=chance).item(), chance) for _ in range(CAPTIONS)]
        for _ in range(PICTURES)
    ]
    return pictures, captions


def _caption(words: float, chance: torch.Generator) -> Encoded:
    return Encoded((START, *torch.randint(1000, 30000, (int(words),), generator=chance).tolist(), END), 1)


def _model() -> tuple[Blip, list[torch.nn.Parameter]]:
    blip = blip_base(torch.float32)
    blip.freeze(["vision"])
    blip.model.train()
    return blip, [p for p in blip.model.parameters() if p.requires_grad]


def _plain(autocast: bool) -> Callable[[], None]:
    (blip, learned), (pictures, captions) = _model(), _data()
    optimizer = torch.optim.AdamW(learned, lr=1e-5)
    pairs = [(n, one) for n, group in enumerate(captions) for one in group]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1)).tolist()
    batches = [[pairs[i] for i in order[start : start + ROWS]] for start in range(0, len(order), ROWS)]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            width = max(len(one.tokens) for _, one in batch)
            ids = torch.tensor([[*one.tokens, *[0] * (width - len(one.tokens))] for _, one in batch])
            mask = torch.tensor([[1] * len(one.tokens) + [0] * (width - len(one.tokens)) for _, one in batch])
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = blip.model(
                    pixel_values=pictures[[n for n, _ in batch]],
                    input_ids=ids,
                    attention_mask=mask,
                    labels=ids.masked_fill(mask == 0, -100),
                ).loss
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()

    return step


def _grouped(autocast: bool, cached: bool) -> Callable[[], None]:
    (blip, learned), (pictures, captions) = _model(), _data()
    optimizer = torch.optim.AdamW(learned, lr=1e-5, fused=True)
    batch = collate(list(zip(pictures.numpy(), captions, strict=True)))
    with torch.inference_mode():
        kept = blip.memory(batch["seen"]).to(torch.bfloat16)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            memory = kept.clone().to(blip.running_dtype) if cached else blip.memory(batch["seen"])
            losses = blip.token_losses(memory, *(batch[k] for k in ("tokens", "lengths", "owner", "given")))
        losses.objective.mean().backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
