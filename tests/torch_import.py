"""What happens when a test imports torch: it starts from the seed that all tests start from, or the test is skipped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

import pytest

SEED = 0


class _Skip:
    """Skips the test, or the module of tests, that imports torch."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name == "torch":
            pytest.skip("needs torch", allow_module_level=True)
        return None


class _Seed:
    """Seeds torch once it is loaded: a test that loads it draws what it would draw after one that has loaded it."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_seed(module: ModuleType) -> None:
                load(module)
                module.manual_seed(SEED)

            spec.loader.exec_module = load_and_seed  # type: ignore[method-assign]
        return spec


def on_torch_import(*, skip: bool) -> None:
    """Watch for the import of torch in this process: skip whoever does it, or seed it."""
    sys.meta_path.insert(0, _Skip() if skip else _Seed())
