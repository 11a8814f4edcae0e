"""Starting captune as a user does: alone, or as several processes by torch's launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
PORT = 29_500 + os.getpid() % 1000


def captune(*args: str, processes: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    return start("-m", "captune", *args, processes=processes, **environment)


def start(*words: str, processes: int = 2, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script or a module with its arguments."""
    launcher = [sys.executable] if processes == 1 else [*LAUNCHER, str(PORT)]
    around = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([*launcher, *words], capture_output=True, text=True, env=around, check=False, timeout=300)


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
