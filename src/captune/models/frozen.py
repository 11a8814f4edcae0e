"""Weights that do not learn: in a file of their own, which the checkpoints of a run share by hard links."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from captune.core.files import write_json
from captune.models.weights import INDEX, TYPES, WEIGHTS, opened

LEARNED, FROZEN = "model-learned.safetensors", "model-frozen.safetensors"
# Less than this many bytes are not worth a second file.
LEAST = 64 << 20
_SCRATCH = ".frozen"


@dataclass(frozen=True)
class Shared:
    """Frozen weights of at least `least` bytes are linked to those in the folder `earlier`, where it has the same."""

    earlier: Path | None = None
    least: int = LEAST


def save_apart(model: Any, frozen: frozenset[str], folder: Path, save: Callable[..., None], shared: Shared) -> None:
    """Write a model by `save(folder, state_dict=…)` with its weights named `frozen` in a file of their own.

    An index names both files, as `transformers` reads it. Where the earlier folder holds the same frozen weights,
    its file is linked, and takes no room; where the disk has no links, it is written again.
    """
    state = model.state_dict()
    apart = {name: value for name, value in state.items() if name in frozen}
    if sum(value.nbytes for value in _once(apart).values()) < shared.least:
        save(folder)
        return
    save(folder, state_dict={name: value for name, value in state.items() if name not in frozen})
    os.replace(folder / WEIGHTS, folder / LEARNED)
    if shared.earlier is None or not _linked(shared.earlier / FROZEN, folder / FROZEN, apart):
        scratch = folder / _SCRATCH
        save(scratch, state_dict=apart, max_shard_size=1 << 50)
        os.replace(scratch / WEIGHTS, folder / FROZEN)
        shutil.rmtree(scratch)
    places: dict[str, str] = {}
    for name in (LEARNED, FROZEN):
        with opened([folder / name]) as found:
            places |= dict.fromkeys(found, name)
    size = sum((folder / name).stat().st_size for name in (LEARNED, FROZEN))
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _linked(earlier: Path, file: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file that holds as many weights of the same types and shapes could be linked.

    Their values are the same: the weights of a run that do not learn stay as they were loaded.
    """
    if not earlier.is_file():
        return False
    with opened([earlier]) as found:
        there = Counter((TYPES.get(one.get_dtype()), tuple(one.get_shape())) for one in found.values())
    # Tied weights are saved once, or by each of their names.
    once, named = (_kinds(values) for values in (_once(weights).values(), weights.values()))
    if not once <= there <= named:
        return False
    with suppress(OSError):
        os.link(earlier, file)
    return file.is_file()


def _kinds(values: Iterable[Tensor]) -> Counter[tuple[Any, tuple[int, ...]]]:
    return Counter((value.dtype, tuple(value.shape)) for value in values)


def _once(weights: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Weights that are tied count once."""
    return {value.data_ptr(): value for value in weights.values()}
