"""A name → `module:attribute` table, loaded on first use and open to entry points."""

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from captune.core.errors import CaptuneError, UsageError, did_you_mean


class Table(Mapping[str, Any]):
    """Names of one kind of thing, each loaded when it is asked for.

    Another package adds a name by declaring an entry point in `group`; captune's own
    names win over entry points of the same name. An unknown name raises `UsageError`
    with the known names and the nearest; another package that imports what captune no longer has, `CaptuneError`
    with the `contract` that its names have to fulfil.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], *, group: str = "", contract: str = "") -> None:
        self.kind, self.contract = kind, contract
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
            try:
                loaded: Any = importlib.import_module(module)
            except ImportError as error:
                if name in self._targets or not (error.name or "").startswith("captune."):
                    raise
                raise CaptuneError(
                    f"The {self.kind} '{name}' ({module}) is written for another version of captune: {error}.",
                    f"Update its package. {self.contract}".strip(),
                ) from error
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
