"""An estimate of the memory and disk that a training takes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from captune.models.backbone import Backbone
from captune.models.weights import LEAST

# fp32: the gradient of a value that learns, and Adam's two averages of it.
GRADIENT, ADAM = 4, 8
# Checkpoints that stay besides the newest: the two best.
BEST = 2


@dataclass(frozen=True)
class Needs:
    """Bytes of a training: of memory beside the batches, of its first checkpoint and of each later one."""

    weights: int
    learning: int
    first: int
    later: int

    def disk(self, checkpoints: int) -> int:
        return self.first + max(0, checkpoints - 1) * self.later


def estimate_needs(backbone: Backbone) -> Needs:
    """Those of a backbone as it is loaded, with what is to learn."""
    parameters = list(backbone.model.parameters())
    values = sum(p.numel() for p in parameters if p.requires_grad)
    # What learns is in fp32 when it does, whatever it was loaded in.
    weights = sum(p.numel() * GRADIENT if p.requires_grad else p.nbytes for p in parameters)
    state = values * ADAM
    names = backbone.frozen_weights() if backbone.placed else frozenset()
    named = dict(backbone.model.named_parameters())
    frozen = sum(named[name].nbytes for name in names if name in named)
    shared = frozen if frozen >= LEAST else 0
    return Needs(weights, values * (GRADIENT + ADAM), weights + state, weights + state - shared)


def default_needs_message(backbone: Backbone) -> str:
    """What a training with default options would take of a loaded model, in words; it changes what is to learn."""
    backbone.freeze(backbone.frozen_by_default)
    needs = estimate_needs(backbone)
    memory = gigabytes(needs.weights + needs.learning)
    return f"training takes about {memory} of memory besides its batches, a first checkpoint {gigabytes(needs.first)}"


def needs_message(backbone: Backbone, run: Path, keep: int) -> str:
    """The needs of a training in a line, beside what is free; `keep` as in --keep-checkpoints."""
    needs = estimate_needs(backbone)
    all_of, weights, learning = map(gigabytes, (needs.weights + needs.learning, needs.weights, needs.learning))
    room = gigabytes(free_memory(backbone.device))
    memory = f"{all_of} of memory (weights {weights}, gradients and optimizer {learning}) and what its batches need"
    existing = next(folder for folder in (run.absolute(), *run.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if keep:
        disk = f"up to {gigabytes(needs.disk(keep + BEST))} of disk for {keep + BEST} checkpoints"
    else:
        disk = f"{gigabytes(needs.first)} of disk for the first checkpoint and {gigabytes(needs.later)} for each other"
    short = needs.disk(keep + BEST) > free
    hint = " That is too little: free some, or keep fewer (--keep-checkpoints 1)." if short else ""
    return f"Takes about {memory}; {room} free. Takes {disk}; {gigabytes(free)} free.{hint}"


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now; MPS shares the machine's."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    import psutil

    return int(psutil.virtual_memory().available)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{max(1, round(size / 1e6))} MB"
