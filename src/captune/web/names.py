"""Names for the models that people and programs choose from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from captune.core.errors import UsageError

_NAMED = re.compile(r"([^=/]+)=(.+)")


def named(models: Sequence[str], *, short: bool = False) -> dict[str, str]:
    """`NAME=MODEL` or MODEL (named after its folder, or its id on the Hub) as names and models.

    With `short` a Hub id is named by its last part as well. Raises `UsageError` where two have one name.
    """
    if not models:
        raise UsageError("No model was named.", "For example: --model runs/x")
    found: dict[str, str] = {}
    for given in models:
        if given.startswith("=") or given.endswith("="):
            raise UsageError(f"--model {given}: a name or a model is missing.", "For example: --model mine=runs/x")
        match = None if Path(given).exists() else _NAMED.fullmatch(given)
        local = given.startswith((".", "/", "~")) or Path(given.rpartition("@")[0] or given).exists()
        if match:
            name, source = match.groups()
        elif local:
            name, source = Path(given).resolve().name, given
        else:
            name, source = PurePath(given).name if short else given, given
        if name in found:
            raise UsageError(f"Two models are called {name}.", f"Name them: --model base={found[name]} --model mine=…")
        found[name] = source
    return found
