"""An exported model under captune's own search: the graphs stand where the torch text part does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from captune.core.exported import TEXT, TEXT_INPUTS, VISION
from captune.models.stepper import KeyValues, Stepper


class Runs(Protocol):
    """Two graphs that run somewhere."""

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of `vision` or `text` for its inputs by name, in their order."""


class ExportedStepper(Stepper):
    """A `Stepper` over exported graphs; its memory is pixels (pictures, 3, size, size) as fp32 levels of 0–255."""

    def __init__(self, model: Runs, *, layers: int, heads: int, head_width: int) -> None:
        self.model, self.layers, self.heads, self.head_width = model, layers, heads, head_width

    def recall(self, memory: Tensor) -> tuple[np.ndarray, np.ndarray]:
        keys, values = self.model.run(VISION, {"pixels": memory.to(torch.uint8).numpy()})
        return keys, values

    def step(
        self,
        tokens: Tensor,
        positions: Tensor,
        recalled: tuple[np.ndarray, np.ndarray],
        said: KeyValues,
        mask: Tensor | None,
    ) -> Tensor:
        """Scores (pictures, rows, vocabulary) in place of hidden states."""
        (pictures, rows), used = tokens.shape, said.used
        if mask is None:
            mask = torch.zeros(1, 1, rows, used + rows)
        before = (said.keys[:, :, :, :used].numpy(), said.values[:, :, :, :used].numpy())
        given = (tokens.numpy(), positions.numpy(), *recalled, *before, mask.expand(pictures, -1, -1, -1).numpy())
        inputs = {name: np.ascontiguousarray(one) for name, one in zip(TEXT_INPUTS, given, strict=True)}
        logits, keys, values = self.model.run(TEXT, inputs)
        said.keys[:, :, :, used : used + rows] = torch.from_numpy(keys)
        said.values[:, :, :, used : used + rows] = torch.from_numpy(values)
        said.used += rows
        return torch.from_numpy(logits)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden
