"""The loss curve of a real training by captune's grouped step and by plain `transformers`, pair by pair.

    python benchmarks/same_curve.py DATA [--steps 60] [--size small] [--captions 5] [--pictures 16]

DATA is a folder made by `captune prepare`. Both begin with the same weights and see the same images and captions
in the same order, in fp32, without dropout or augmentation; the other side trains each (image, caption) pair as a
row with dynamic padding. Every step is timed, the two in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from captune.datasets.prepared import read_split
from captune.inference.batches import Augmentation, CaptionDataset, EpochOrder, make_examples, training_loader
from captune.models.blip import Blip
from captune.training.loop.trainer import TrainingModule
from machine import machine, markdown

Batch = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", default="small")
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=16)
    asked = parser.parse_args()
    print(machine("captune", "torch", "transformers"), f"{torch.get_num_threads()} threads", sep=", ")
    records = read_split(asked.data, "train")[: asked.steps * asked.pictures]
    texts = [text for record in records for text in record.references]
    sides = []
    for kind in (_plain, _grouped):
        torch.manual_seed(0)
        blip = Blip.new(asked.size, texts, vocab_size=4000)
        blip.set_dropout(0.0)
        blip.model.train()
        sides.append((kind(blip), torch.optim.AdamW(blip.model.parameters(), lr=5e-4, fused=True)))
    examples = CaptionDataset(
        make_examples(records, blip, max_tokens=30, per_image=asked.captions),
        blip.pixels,
        Augmentation(0, 0.0, 0.0, 0.0),
    )
    curves: list[list[float]] = [[], []]
    seconds = [0.0, 0.0]
    for step, batch in enumerate(
        training_loader(examples, EpochOrder(len(examples), 0), asked.pictures, 0, blip.pad_token_id)
    ):
        if step == asked.steps:
            break
        for side, (loss_of, optimizer) in enumerate(sides):
            started = time.perf_counter()
            loss = loss_of(batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds[side] += time.perf_counter() - started if step else 0.0  # the first warms up
            curves[side].append(loss.item())
    rows = [(str(n + 1), *(f"{curve[n]:.4f}" for curve in curves)) for n in range(0, len(curves[0]), 10)]
    print("\n" + markdown(("step", "transformers", "captune"), rows))
    apart = max(abs(a - b) / a for a, b in zip(*curves, strict=True))
    print(f"\nlargest difference of a step's loss: {100 * apart:.3f} %; seconds of a step: ", end="")
    print(", ".join(f"{total / (len(curves[0]) - 1):.2f}" for total in seconds), f"({seconds[0] / seconds[1]:.1f}×)")


def _grouped(blip: Blip) -> Callable[[Batch], torch.Tensor]:
    module = TrainingModule(blip)

    def loss_of(batch: Batch) -> torch.Tensor:
        return module(**batch)["objective"] / (batch["lengths"] - batch["given"]).sum()

    return loss_of


def _plain(blip: Blip) -> Callable[[Batch], torch.Tensor]:
    def loss_of(batch: Batch) -> torch.Tensor:
        mask = torch.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]
        return blip.model(
            pixel_values=blip.pixels.normalise(batch["images"])[batch["owner"]],
            input_ids=batch["tokens"],
            attention_mask=mask.long(),
            labels=batch["tokens"].masked_fill(~mask, -100),
        ).loss

    return loss_of


if __name__ == "__main__":
    main()
