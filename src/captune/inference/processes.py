"""The processes that train together (`torchrun`, `accelerate launch`), or the one that trains alone."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from captune.core.errors import CaptuneError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")
# How accelerate's launcher asks for sharding, and how one asks captune for it.
ACCELERATE_SHARDS, SHARDS = "ACCELERATE_USE_FSDP", "CAPTUNE_SHARD"


@dataclass(frozen=True)
class Processes:
    """This process's number among `count`; the first one writes."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: str | None = None) -> Processes:
        """Meet the others, as the launcher's variables say; alone, and without torch, where there is no launcher."""
        if _asks_for(ACCELERATE_SHARDS):
            # accelerate and transformers must not shard as well.
            del os.environ[ACCELERATE_SHARDS]
            os.environ.setdefault(SHARDS, "true")
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if _asks_for("ACCELERATE_USE_DEEPSPEED"):
            raise CaptuneError(
                "Training with DeepSpeed is not in this version.",
                "Choose multi-GPU (DDP) or FSDP in the launcher, which shares out as much as ZeRO stage 3.",
            )
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        atexit.register(_leave)
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()

    def share(self, value: Value) -> Value:
        """The first process's value, in all."""
        if self.count == 1:
            return value
        from torch import distributed

        held = [value]
        distributed.broadcast_object_list(held, src=0)
        return held[0]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, in their order, in all."""
        if self.count == 1:
            return [value]
        from torch import distributed

        held: list[Any] = [None] * self.count
        distributed.all_gather_object(held, value)
        return held

    def any(self, flag: bool) -> bool:
        """Whether it is so in one of them."""
        return flag if self.count == 1 else any(self.gather(flag))

    def device(self, device: torch.device) -> torch.device:
        """The card of this process."""
        if self.count > 1 and device.type == "cuda" and device.index is None:
            import torch

            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return device


def _asks_for(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def _leave() -> None:
    """Take leave of the others at the end, so that none waits."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


ALONE = Processes()
