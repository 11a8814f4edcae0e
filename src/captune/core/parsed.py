"""JSON and YAML of strangers: what nests, repeats or counts without end is an error, never the end of the program.

Python's own parsers stop at the depth of its stack (`RecursionError`, which no reader expects), leave values so deep
that showing them fails, and raise a bare `ValueError` for a number of more than 4,300 digits. YAML's aliases let a
kilobyte stand for more values than any memory holds.
"""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import yaml

# Levels of lists in lists: annotations and model configurations have five or six.
MAX_DEPTH = 64
# Values of a configuration with its aliases written out, and letters of its text: captune's own have two hundred and
# six thousand. A megabyte of YAML takes its parser half a minute.
MAX_VALUES = 100_000
MAX_YAML_CHARS = 500_000
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises `json.JSONDecodeError` for whatever is wrong with it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("Nested too deeply", text, 0) from None
    except ValueError:
        raise json.JSONDecodeError("A number of too many digits", text, 0) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        raise json.JSONDecodeError("Nested too deeply", text, 0)
    return value


def is_deep(value: Any) -> bool:
    """Whether a value has more than `MAX_DEPTH` lists in lists."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of plain values; raises `yaml.YAMLError` for whatever is wrong with it."""
    if len(text) > MAX_YAML_CHARS:
        raise yaml.YAMLError(f"more than {MAX_YAML_CHARS:,} letters")
    depth = accumulate(_STEPS.get(sign, 0) for sign in text) if text.count("[") + text.count("{") > MAX_DEPTH else ()
    if max(depth, default=0) > MAX_DEPTH:  # its parser needs the square of the depth in time
        raise yaml.YAMLError("nested too deeply")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # a date that does not exist, a number of too many digits
        raise yaml.YAMLError(str(error)) from None


class _Loader(yaml.SafeLoader):
    """Counts what aliases stand for before any value is made of them."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _count_values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return node


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node and below; one that holds itself has more than any budget."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # until it is counted
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_count_values(n, known) for n in inner))
    return known[id(node)]
