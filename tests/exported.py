"""Tiny models with lively weights in folders, for tests of exports."""

from __future__ import annotations

from pathlib import Path

import torch

from captune.models import FAMILIES
from captune.models.backbone import Backbone
from lively import LIVELY

EXPORTABLE = ("blip", "clip-gpt2", "git")
# Of models that end their captions, and whose best tokens are never so near each other that rounding decides.
SEEDS = {"blip": 10, "clip-gpt2": 4, "git": 10}


def saved_model(family: str, folder: Path) -> Path:
    """A lively tiny model of a family, saved."""
    torch.manual_seed(SEEDS[family])
    made: Backbone = FAMILIES[family].tiny()
    made.model.eval()
    with torch.no_grad():
        LIVELY[family](made.model)
    made.save(folder)
    return folder
