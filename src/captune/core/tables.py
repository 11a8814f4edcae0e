"""A name → `module:attribute` table, loaded on first use and open to entry points."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from captune.core.errors import UsageError, did_you_mean


class Table(Mapping[str, Any]):
    """Names of one kind of thing, each loaded when it is asked for.

    Another package adds a name by declaring an entry point in `group`; captune's own
    names win over entry points of the same name. An unknown name raises `UsageError`
    with the known names and the nearest.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], *, group: str = "") -> None:
        self.kind = kind
        self._targets = dict(entries)
        self._group = group
        self._found: dict[str, str] | None = None
        self._loaded: dict[str, Any] = {}

    @property
    def targets(self) -> dict[str, str]:
        """Every name and its `module:attribute`, entry points included; imports nothing."""
        if self._found is None:
            found = {e.name: e.value for e in entry_points(group=self._group)} if self._group else {}
            self._found = {**found, **self._targets}
        return self._found

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            targets = self.targets
            if name not in targets:
                raise UsageError(f"There is no {self.kind} '{name}'.", did_you_mean(name, targets))
            module, _, attribute = targets[name].partition(":")
            loaded: Any = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                loaded = getattr(loaded, part)
            self._loaded[name] = loaded
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.targets

    def __iter__(self) -> Iterator[str]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)
