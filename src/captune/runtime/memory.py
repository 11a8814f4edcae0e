"""What an exported model remembers of pictures, and the nothing that was said of them yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from captune.core.exported import PAST, layer_names
from captune.runtime.arrays import Array

# The vision graph's outputs, the text graph's inputs: `memory_keys_0` … and `memory_values_0` …, one of each a layer,
# each (pictures, heads, places, head width).
Memory = Mapping[str, Array]


def of_pictures(memory: Memory, pictures: Sequence[int]) -> Memory:
    """The memory of some of the pictures."""
    return {name: each[pictures] for name, each in memory.items()}


def nothing_said(memory: Memory) -> dict[str, Array]:
    """`said_keys_0` … and `said_values_0` … (pictures, heads, slots, head width) of no slots."""
    pictures, heads, _, width = memory["memory_keys_0"].shape
    names = layer_names(PAST, len(memory) // 2)
    return {name: np.zeros((pictures, heads, 0, width), np.float32) for name in names}
