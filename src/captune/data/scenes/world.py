"""What a built-in scene holds, drawn by chance from a seed, and which combinations are held out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

COLORS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
COUNTS = (1, 2, 3)

Name = tuple[str, str]
"""What an object is called: its colour and its shape."""

OBJECTS: tuple[Name, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)


@dataclass(frozen=True, slots=True)
class Scene:
    """One object, two or three equal ones, or two different ones with a relation.

    With two names `relation` says where the first is as seen from the second and `count`
    is 1; with one name `relation` is None and `count` says how many of it there are.
    `seed` fixes everything else: places, sizes, shades, background and wording.
    """

    names: tuple[Name, ...]
    relation: str | None
    count: int
    seed: int


PAIRS = tuple((one, other) for one in OBJECTS for other in OBJECTS if one != other)


def held_out(one: Name, other: Name) -> bool:
    """Whether these two objects appear together in test pictures only, whatever their relation.

    21 of the 105 pairs are. Each object, colour and shape still appears in training, beside
    others: what a model must have learned is to name what it sees, not which go together.
    """
    return (OBJECTS.index(one) + OBJECTS.index(other)) % len(COLORS) == 2


def training_scenes(count: int, *, seed: int) -> Iterator[Scene]:
    """Draw `count` scenes without held-out pairs.

    Of three in turn two show two objects with a relation, and one shows one object or
    two or three equal ones.
    """
    chance = random.Random(f"training scenes {seed}")
    pairs = [pair for pair in PAIRS if not held_out(*pair)]
    for index in range(count):
        if index % 3 < 2:
            yield Scene(chance.choice(pairs), chance.choice(RELATIONS), 1, chance.getrandbits(48))
        else:
            yield Scene((chance.choice(OBJECTS),), None, chance.choice(COUNTS), chance.getrandbits(48))


def held_out_scenes(count: int, *, seed: int) -> Iterator[Scene]:
    """Draw `count` scenes of two objects that training never shows together."""
    chance = random.Random(f"held-out scenes {seed}")
    pairs = [pair for pair in PAIRS if held_out(*pair)]
    for _ in range(count):
        yield Scene(chance.choice(pairs), chance.choice(RELATIONS), 1, chance.getrandbits(48))
