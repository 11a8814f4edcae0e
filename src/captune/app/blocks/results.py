"""The results of blocks, found by the names of the blocks and by their other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

Result = dict[str, Any]
Ctx = dict[str, Result]
_NUMBER = re.compile(r"^\d+_")


class Named(Protocol):
    """What has other names beside the one it is listed by."""

    @property
    def also(self) -> tuple[str, ...]: ...


class Results(dict[str, Result]):
    """Results by the names of their blocks; `ctx["04_load_ds"]` and `ctx["load_datasets"]` find them as well."""

    def __init__(self) -> None:
        super().__init__()
        self.also: dict[str, str] = {}

    def _key(self, name: Any) -> Any:
        if not isinstance(name, str) or super().__contains__(name):
            return name
        short = next((full for full in self if _NUMBER.sub("", full) == name), name)
        return self.also.get(name, short)

    def __getitem__(self, name: str) -> Result:
        return super().__getitem__(self._key(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._key(name))

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(self._key(name), default)


def full_name(name: str, blocks: Mapping[str, Named]) -> str:
    """The name of the block that is meant by another of its names, or by its name without the number."""
    if name in blocks:
        return name
    return next((full for full, one in blocks.items() if name in one.also or _NUMBER.sub("", full) == name), name)
