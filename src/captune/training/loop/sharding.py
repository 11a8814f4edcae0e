"""Weights, gradients and optimizer state shared out among the processes that train (FSDP).

Rajbhandari et al. 2020, *ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models*; the sharding is torch's `fully_shard`. What learns and what validates and is saved
are two models: the first holds shards, the second borrows whole weights and gives them back.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from captune.models.backbone import Backbone


class Shards:
    """A backbone as two: `learner` holds a share of every weight, `whole` none but those it has borrowed.

    Every process calls every method, at the same time.
    """

    def __init__(self, whole: Backbone) -> None:
        self.whole, self.learner = whole, replace(whole, fused_vision=False)
        whole.model = _hollow(whole.model)
        whole.clear_fused()

    def share_out(self, module: nn.Module, *, apart: Collection[str], count: int) -> None:
        """Leave this process its share of a module around the learner, as the first process has it.

        The layers of the parts `apart` are gathered one at a time, everything else for the
        whole forward and backward pass.
        """
        for parameter in module.parameters():
            distributed.broadcast(parameter.data, src=0)
        mesh = init_device_mesh(self.learner.device.type, (count,))
        for part, layered in self.learner.shardable_parts().items():
            for layer in layered.modules() if part in apart else ():
                if isinstance(layer, GradientCheckpointingLayer):
                    fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)

    @contextmanager
    def lent(self, *, here: bool = True) -> Iterator[None]:
        """`whole` has its weights meanwhile, on its device; in the processes that are not `here` it stays empty."""
        for borrowed, share in self._pairs():
            weights = share.detach().full_tensor()
            if here:
                borrowed.data = weights
        try:
            yield
        finally:
            self.whole.clear_fused()
            for borrowed, _ in self._pairs():
                borrowed.data = borrowed.data.new_empty(0)

    def take(self) -> None:
        """Keep what was done to the weights that are lent."""
        with torch.no_grad():
            for borrowed, share in self._pairs():
                share.copy_(_share(borrowed.data, share))

    def _pairs(self) -> Iterator[tuple[nn.Parameter, Any]]:
        return zip(self.whole.model.parameters(), self.learner.model.parameters(), strict=True)


def whole_state(optimizer: torch.optim.Optimizer, *, here: bool) -> dict[str, Any]:
    """The state of an optimizer over shards as it would be without them, on the CPU; empty where it is not kept."""
    state = optimizer.state_dict()
    found: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            value = value.full_tensor() if isinstance(value, DTensor) else value
            if here:
                found.setdefault(number, {})[name] = value.cpu() if isinstance(value, Tensor) else value
    return {**state, "state": found}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Share out what `whole_state` made, or what was saved without shards."""
    shares = [share for group in optimizer.param_groups for share in group["params"]]
    found = {
        number: {
            name: _share(value, shares[number]) if value.shape == shares[number].shape else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": found})


def _share(value: Tensor, like: DTensor) -> DTensor:
    """This process's share of a whole tensor that all of them have."""
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _hollow(model: Any) -> Any:
    """A copy of a model with its buffers and without its weights; those that are tied stay tied."""
    empty: dict[int, Any] = {
        id(p): nn.Parameter(p.data.new_empty(0), requires_grad=p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, empty)
