"""Want of memory and room in a training, told with the settings that learn the same; batches that are halved."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from captune.app.resuming import equal_steps
from captune.app.train_limits import told
from captune.core.config import resolve
from captune.core.disk import DiskFull
from captune.core.errors import CaptuneError
from captune.core.halving import Halving
from captune.core.memory import OutOfMemory
from captune.core.options import TrainConfig
from captune.core.runs import Run

CARD = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB.")


def after(error: Exception, **options: Any) -> CaptuneError:
    """What a training ends with in which `error` was raised."""
    config = resolve(TrainConfig, flags=options).values
    with pytest.raises(CaptuneError) as caught, told(Run(Path("runs/x")), config, "to train"):
        raise error
    return caught.value


def test_the_message_names_the_same_step_in_less_memory() -> None:
    found = after(CARD)
    assert isinstance(found, OutOfMemory)
    assert "not memory enough to train: CUDA out of memory" in found.message
    assert "captune train --resume --out runs/x --batch-size 4 --gradient-accumulation 2 --gradient-checkpointing" in (
        found.hint
    )
    assert "--cache-features" in found.hint
    assert "--captions-per-image 1" in found.hint


def test_what_is_used_already_or_changes_the_sums_is_not_named() -> None:
    assert "--gradient-checkpointing" not in after(CARD, gradient_checkpointing=True).hint
    found = after(CARD, batch_size=1, gradient_checkpointing=True, flip=True, lora="on", captions_per_image=1)
    assert "--resume" not in found.hint
    assert not {"--cache-features", "--lora", "--captions-per-image"} & set(found.hint.replace(",", "").split())
    assert "--batch-size" not in after(CARD, stage="scst").hint


@pytest.mark.parametrize(
    ("batch", "parts", "flags"), [(8, 1, (4, 2)), (6, 2, (3, 4)), (9, 1, (3, 3)), (7, 1, (1, 7)), (2, 8, (1, 16))]
)
def test_equal_steps(batch: int, parts: int, flags: tuple[int, int]) -> None:
    assert equal_steps(batch, parts) == "--batch-size {} --gradient-accumulation {}".format(*flags)
    assert flags[0] * flags[1] == batch * parts
    assert equal_steps(1, parts) == ""


def test_room_and_readers() -> None:
    found = after(DiskFull("The disk is full: cannot write x.", "Free some space and run the command again."))
    assert isinstance(found, DiskFull)
    assert "captune train --resume --out runs/x" in found.hint
    assert "--resume" in after(OSError(errno.ENOSPC, "No space left on device", "f")).hint
    found = after(RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."))
    assert "--resume --out runs/x --loader-workers 0" in found.hint
    with pytest.raises(KeyError):
        after(KeyError("a bug"))
    assert after(CaptuneError("no", "do")).hint == "do"


def test_batches_are_halved_until_they_have_room() -> None:
    sizes = []

    def run(start: int, end: int) -> list[int]:
        sizes.append(end - start)
        if end - start > 3 or start <= 5 < end:
            raise CARD
        return list(range(start, end))

    assert Halving("less").results(8, run) == [0, 1, 2, 3, 4, None, 6, 7]
    assert sizes == [8, 4, 2, 2, 2, 1, 1, 1, 1]


def test_no_room_for_any_ends_it() -> None:
    def run(start: int, end: int) -> list[int]:
        raise MemoryError

    with pytest.raises(OutOfMemory, match="one image at a time") as caught:
        Halving("use less").results(100, run)
    assert caught.value.hint == "use less"
