"""The processes that train together (`torchrun`, `accelerate launch`), or the one that trains alone."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from captune.core.errors import CaptuneError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")
# The variables by which accelerate's launcher and a user turn sharding on.
ACCELERATE_SHARDS, SHARDS = "ACCELERATE_USE_FSDP", "CAPTUNE_SHARD"


@dataclass(frozen=True)
class Processes:
    """This process's number among `count`; the first one writes."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: str | None = None) -> Processes:
        """Join the process group that the launcher's variables name; alone, and without torch, where there is none."""
        if _is_on(ACCELERATE_SHARDS):
            # accelerate and transformers must not shard as well.
            del os.environ[ACCELERATE_SHARDS]
            os.environ.setdefault(SHARDS, "true")
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls()
        if _is_on("ACCELERATE_USE_DEEPSPEED"):
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

    @contextmanager
    def first_does(self) -> Iterator[bool]:
        """All meet before and after the block; it gets True in the first process, which alone has work there."""
        self.wait()
        yield self.first
        self.wait()

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The first process goes through the block while the others wait, then the others do."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def share(self, value: Value) -> Value:
        """The first process's value, in all."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, in their order, in all."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so in one of them."""
        return flag if self.count == 1 else any(self.gather(flag))

    def device(self, device: torch.device) -> torch.device:
        """The card of this process."""
        if self.count > 1 and device.type == "cuda" and device.index is None:
            import torch

            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return device


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def _leave() -> None:
    """Leave the process group at the end, so that no other process waits."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


ALONE = Processes()
