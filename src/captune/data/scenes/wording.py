"""What people would write under a scene, and whether a caption says what is there."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from captune.data.scenes.world import COLORS, OPPOSITE, SHAPES, Name, Scene

NUMBERS = {1: "one", 2: "two", 3: "three"}

# {a} and {b} are objects such as "red circle"; the first phrase of a relation stands in
# {says}, where the object is on its own in {at_a} and {at_b}.
PAIR_WORDINGS = (
    "a {a} {says} a {b}",
    "one {a} {says} one {b}",
    "the {a} is {says} the {b}",
    "there is a {a} {says} a {b}",
    "{a} {at_a} and {b} {at_b}",
    "a {a} {at_a} with a {b} {at_b}",
)
ONE_WORDINGS = ("a {a}", "one {a}", "there is a {a}", "the {a} is alone", "a {a} on its own")
SOME_WORDINGS = ("{n} {a}s", "there are {n} {a}s", "the {n} {a}s", "a group of {n} {a}s", "{n} {a}s together")
SAYS = {"left of": "left of", "right of": "right of", "above": "above", "below": "below"}
AT = {"left of": "on the left", "right of": "on the right", "above": "on top", "below": "at the bottom"}

REFERENCES = 5


def references(scene: Scene) -> tuple[str, ...]:
    """Five differently worded, true sentences about a scene."""
    chance = random.Random(f"words {scene.seed}")
    wordings = _wordings(scene)
    return tuple(_sentence(scene, w, swap=chance.random() < 0.5) for w in chance.sample(wordings, REFERENCES))


def objects_named(caption: str, objects: Iterable[Name]) -> bool:
    """Whether a caption names exactly these objects, each once, with its own colour and shape.

    A colour without a shape, a shape without a colour, an object too many or too few, or
    colours that changed places make it False.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    named: list[Name] = []
    color = None
    for word in words:
        shape = word.removesuffix("s")
        if shape in SHAPES:
            if color is None:
                return False
            named.append((color, shape))
            color = None
        elif color is not None:
            return False
        elif word in COLORS:
            color = word
    return color is None and sorted(named) == sorted(objects)


def all_true(caption: str, scene: Scene) -> bool:
    """Whether a caption is one of the sentences that are true of the scene: objects, relation and count."""
    return " ".join(caption.lower().split()) in true_sentences(scene)


def true_sentences(scene: Scene) -> frozenset[str]:
    """Every wording of every true sentence about a scene."""
    swaps = (False, True) if scene.relation else (False,)
    return frozenset(_sentence(scene, wording, swap=swap) for wording in _wordings(scene) for swap in swaps)


def _wordings(scene: Scene) -> tuple[str, ...]:
    if scene.relation:
        return PAIR_WORDINGS
    return ONE_WORDINGS if scene.count == 1 else SOME_WORDINGS


def _sentence(scene: Scene, wording: str, *, swap: bool) -> str:
    if scene.relation is None:
        return wording.format(a=" ".join(scene.names[0]), n=NUMBERS[scene.count])
    first, second = scene.names
    relation = scene.relation
    if swap:
        first, second, relation = second, first, OPPOSITE[relation]
    return wording.format(
        a=" ".join(first),
        b=" ".join(second),
        says=SAYS[relation],
        at_a=AT[relation],
        at_b=AT[OPPOSITE[relation]],
    )
