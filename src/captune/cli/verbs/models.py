from __future__ import annotations

from dataclasses import asdict

from captune.cli.flags import Json, verb
from captune.cli.terminal import note, out_json, out_table


def models(json: Json = False) -> None:
    """Model families that captune knows, and the names of models from scratch."""
    from captune.app.models import families

    found = families()
    if json:
        out_json([{**asdict(family), "new": family.new} for family in found])
        return
    out_table("", ("family", "from scratch", "what it is"), [(f.name, " ".join(f.new), f.about) for f in found])
    note("--model takes one of these, a folder, a run (runs/x, runs/x@last) or a Hub id.")


app = verb(models)
