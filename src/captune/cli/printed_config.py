"""`--print-config`: every option with its value and who set it."""

from __future__ import annotations

import os

from captune.cli.flags import Chosen
from captune.cli.terminal import out_json, out_table
from captune.core.config import leaves, resolve
from captune.core.options import Options


def print_resolved(config: type[Options], chosen: Chosen, *, json: bool) -> None:
    """The options of a verb as a run would take them now."""
    origins = chosen.sources
    resolved = resolve(
        config,
        preset=origins.get("preset"),
        file=origins.get("config"),
        environment=os.environ,
        flags=chosen.flags,
        sets=origins.get("sets") or (),
    )
    found = {
        leaf.key: (
            getattr(getattr(resolved.values, leaf.section), leaf.name),
            resolved.sources.get(leaf.key, "default"),
        )
        for leaf in leaves(config).values()
    }
    if json:
        out_json({key: {"value": value, "from": source} for key, (value, source) in found.items()})
        return
    out_table("", ("option", "value", "from"), [(key, _shown(value), source) for key, (value, source) in found.items()])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
