"""Trainings as command lines, and the launcher of torch that starts captune as two processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
PORT = 29_500 + os.getpid() % 1000


def flags(data: Path, out: Path, batch: int, **more: Any) -> list[str]:
    """Words of a short training; an option that is None stands alone."""
    options = {
        "data": data, "model": "new:blip-tiny", "out": out, "batch_size": batch, "max_steps": 5, "eval_steps": 2,
        "logging_steps": 1, "learning_rate": 1e-2, "dropout": 0, "num_beams": 1, "max_new_tokens": 6,
        "validation_metrics": "bleu,cider", "keep_checkpoints": 0, "trackers": "none", "device": "cpu", **more,
    }  # fmt: skip
    words = ["train"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is None else [str(value)])]
    return words
