"""Scripts and modules of tools/ and deploy/, loaded by their path."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def script(path: str) -> ModuleType:
    """A file as a module, whatever its name ends with; `__main__` parts do not run."""
    name = f"captune_script_{Path(path).stem.replace('-', '_')}"
    spec = spec_from_loader(name, SourceFileLoader(name, str(ROOT / path)))
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
