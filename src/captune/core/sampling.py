"""What is only read where captions are sampled turns sampling on: it is never left aside without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions

OF_SAMPLING = ("temperature", "top_k", "top_p")


def with_sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a search that somebody gave, with `sample` where a temperature, `top_k` or `top_p` is among them.

    Raises `UsageError` where `sample` was turned off beside one that is not the default; `variations` sample by
    themselves.
    """
    drawn = [name for name in OF_SAMPLING if given.get(name) is not None]
    if not drawn or given.get("variations"):
        return dict(given)
    if given.get("sample") in (False, "false", "off"):
        changed = [name for name in drawn if given[name] != GenerationOptions.model_fields[name].default]
        if changed:
            raise UsageError(
                f"{changed[0]} = {given[changed[0]]} is for captions that are sampled, but sample is off.",
                f"Leave out {changed[0]}, or turn sample on.",
            )
        return dict(given)
    return {**given, "sample": True}


def as_given(options: GenerationOptions) -> dict[str, Any]:
    """All options of a search as keywords for another; of one that does not sample without what only sampling reads."""
    given = options.model_dump()
    return given if options.sample else {name: value for name, value in given.items() if name not in OF_SAMPLING}
