"""Trainings of a few seconds, and what they have learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import captune
from captune.core.runs import Run

QUICK: dict[str, Any] = {
    "max_steps": 8,
    "batch_size": 2,
    "eval_steps": 4,
    "logging_steps": 2,
    "learning_rate": 1e-3,
    "validation_images": 2,
    "max_new_tokens": 6,
    "num_beams": 1,
    "vocab_size": 100,
    "trackers": "none",
}


def train(data: Path, out: Path, **changed: Any) -> Run:
    return Run(captune.train(data, "new:blip-tiny", out, environment={}, **{**QUICK, **changed}).run)


def weights(run: Run, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint(which).path / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
