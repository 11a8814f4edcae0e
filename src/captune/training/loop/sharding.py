"""Weights, gradients and optimizer state sharded over the processes that train (FSDP).

Rajbhandari et al. 2020, *ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models*; the sharding is torch's `fully_shard`. The model that learns holds shards; the one
that validates and is saved gathers whole weights for that time.
"""

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


class ShardedBackbone:
    """A backbone as two: `learner` holds a shard of every weight, `whole` has weights within `gathered` only.

    Every process calls every method, at the same time.
    """

    def __init__(self, whole: Backbone) -> None:
        self.whole, self.learner = whole, replace(whole, fused_vision=False)
        whole.model = _without_weights(whole.model)
        whole.clear_fused()

    def shard(self, module: nn.Module, *, apart: Collection[str], count: int) -> None:
        """Shard a module around the learner; its weights are those of the first process.

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
    def gathered(self, *, here: bool = True) -> Iterator[None]:
        """`whole` has its weights within the block, on its device; in processes that are not `here` it stays empty."""
        for weight, shard in self._weight_pairs():
            weights = shard.detach().full_tensor()
            if here:
                weight.data = weights
        try:
            yield
        finally:
            self.whole.clear_fused()
            for weight, _ in self._weight_pairs():
                weight.data = weight.data.new_empty(0)

    def update_shards(self) -> None:
        """Keep changes of the gathered weights."""
        with torch.no_grad():
            for weight, shard in self._weight_pairs():
                shard.copy_(_shard_of(weight.data, shard))

    def _weight_pairs(self) -> Iterator[tuple[nn.Parameter, Any]]:
        return zip(self.whole.model.parameters(), self.learner.model.parameters(), strict=True)


def whole_state(optimizer: torch.optim.Optimizer, *, here: bool) -> dict[str, Any]:
    """The state of an optimizer over shards as it would be without them, on the CPU; empty where not `here`."""
    state = optimizer.state_dict()
    whole: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            value = value.full_tensor() if isinstance(value, DTensor) else value
            if here:
                whole.setdefault(number, {})[name] = value.cpu() if isinstance(value, Tensor) else value
    return {**state, "state": whole}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Shard what `whole_state` made, or what was saved without shards."""
    shards = [shard for group in optimizer.param_groups for shard in group["params"]]
    sharded = {
        number: {
            name: _shard_of(value, shards[number]) if value.shape == shards[number].shape else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": sharded})


def _shard_of(value: Tensor, like: DTensor) -> DTensor:
    """This process's shard of a tensor that all processes have."""
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _without_weights(model: Any) -> Any:
    """A copy of a model with its buffers and without its weights; those that are tied stay tied."""
    empty: dict[int, Any] = {
        id(p): nn.Parameter(p.data.new_empty(0), requires_grad=p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, empty)
