"""Epochs that a user names, one by one or at equal distances: `2,4,every-10`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_ONE = re.compile(r"(every-)?(\d+(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True)
class ChosenEpochs:
    """Single epochs, and distances of which every multiple is meant."""

    single: tuple[float, ...] = ()
    every: tuple[float, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> ChosenEpochs:
        """From `2`, `0.5` and `every-10`; raises `ValueError` for anything else."""
        found: dict[bool, list[float]] = {False: [], True: []}
        for word in words:
            match = _ONE.fullmatch(word)
            if match is None or not float(match[2]):
                raise ValueError(f"'{word}' is no epoch; for example 2,4,every-10")
            found[bool(match[1])].append(float(match[2]))
        return cls(tuple(found[False]), tuple(found[True]))

    def at(self, step: int, per_epoch: int) -> bool:
        """Whether an optimizer step is the one that ends a chosen epoch, of `per_epoch` steps each."""
        if step <= 0:
            return False
        if any(step == _step(epoch, per_epoch) for epoch in self.single):
            return True
        return any(
            step == _step(distance * max(1, round(step / (per_epoch * distance))), per_epoch) for distance in self.every
        )

    def count(self, epochs: float) -> int:
        """How many of them a training of `epochs` reaches."""
        multiples = (distance * n for distance in self.every for n in range(1, int(epochs / distance) + 1))
        return len({epoch for epoch in (*self.single, *multiples) if epoch <= epochs})

    def beyond(self, epochs: float) -> list[float]:
        """Those that a training of `epochs` does not reach."""
        return [epoch for epoch in (*self.single, *self.every) if epoch > epochs]


def _step(epoch: float, per_epoch: int) -> int:
    return max(1, round(per_epoch * epoch))


def epoch_words(value: Any) -> Any:
    """A single number, a word or several as a tuple of words, checked."""
    given = value if isinstance(value, list | tuple) else (value,)
    words = tuple(
        part.strip()
        for one in given
        for part in (f"{one:g}" if isinstance(one, float) else str(one)).split(",")
        if part.strip()
    )
    ChosenEpochs.parse(words)
    return words
