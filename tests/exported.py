"""Tiny models with lively weights in folders, for tests of exports."""

from __future__ import annotations

from pathlib import Path

import torch

from captune.models import FAMILIES
from captune.models.backbone import Backbone
from lively import LIVELY

EXPORTABLE = ("blip", "clip-gpt2", "git")


def saved_model(family: str, folder: Path) -> Path:
    """A lively tiny model of a family, saved."""
    torch.manual_seed(10)
    made: Backbone = FAMILIES[family].tiny()
    made.model.eval()
    with torch.no_grad():
        LIVELY[family](made.model)
    made.save(folder)
    return folder
