"""Linear layers laid out for inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dense:
    """One or more linear layers over the same input as one, with an exact GELU behind it if asked.

    The weights of a single layer are the module's own; those of several are copied.
    """

    def __init__(self, *layers: nn.Linear, gelu: bool = False) -> None:
        first = layers[0]
        self.gelu = gelu
        self.weight = first.weight.detach() if len(layers) == 1 else torch.cat([one.weight.detach() for one in layers])
        self.bias = first.bias.detach() if len(layers) == 1 else torch.cat([one.bias.detach() for one in layers])

    def __call__(self, values: Tensor) -> Tensor:
        found = functional.linear(values, self.weight, self.bias)
        return functional.gelu(found) if self.gelu else found
