"""`ArrayOps` by torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class TorchOps:
    """Tensors on one device. Draws come from torch's own generator."""

    device: torch.device
    xp: ClassVar[Any] = torch

    def array(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self.device)

    def full(self, shape: Sequence[int], value: float) -> Tensor:
        return torch.full(tuple(shape), value, device=self.device)

    def gather(self, array: Tensor, index: Tensor, axis: int) -> Tensor:
        return torch.take_along_dim(array, index, axis)

    def scatter(self, array: Tensor, index: Tensor, values: Tensor) -> Tensor:
        return array.scatter(-1, index, values)

    def forbid(self, scores: Tensor, index: Tensor, condition: Tensor) -> Tensor:
        # An index may come twice, with and without the condition: one that holds wins.
        banned = torch.zeros_like(scores, dtype=torch.uint8)
        banned.scatter_reduce_(-1, index, condition.to(torch.uint8), "amax")
        return scores.masked_fill(banned.bool(), float("-inf"))

    def topk(self, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, index = scores.topk(k)
        return values, index

    def softmax(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def log_softmax(self, scores: Tensor) -> Tensor:
        return scores.log_softmax(-1)

    def logsumexp(self, scores: Tensor) -> Tensor:
        return scores.logsumexp(-1, keepdim=True)

    def multinomial(self, scores: Tensor, k: int) -> Tensor:
        drawn = torch.multinomial(scores.softmax(-1).reshape(-1, scores.shape[-1]), k)
        return drawn.view(*scores.shape[:-1], k)
