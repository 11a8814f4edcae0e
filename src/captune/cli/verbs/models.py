from dataclasses import asdict

from captune.cli.flags import Json, verb
from captune.cli.terminal import note, out_json, out_table


def models(json: Json = False) -> None:
    """Model families that captune knows, and the names of models from scratch."""
    from captune.models import families

    found = families()
    if json:
        out_json([{**asdict(family), "new": family.new} for family in found])
        return
    rows = [(f.name, " ".join(f.new), f.decoder, f.about) for f in found]
    out_table("", ("family", "from scratch", "searched by", "what it is"), rows)
    if not any(f.decoder for f in found):
        note("torch is not installed: pip install 'captune[torch]' for these; --model takes an export without it.")
        return
    rows = [(c.name, f.name, f"{c.parameters / 1e6:,.0f} M", c.license) for f in found for c in f.checkpoints]
    out_table("", ("on the Hub", "family", "parameters", "licence"), rows)
    note(
        "--model takes one of these, a folder, a run (runs/x, runs/x@last, runs/x@checkpoint-N), a "
        "Hub id, an export, or two as VISION+TEXT."
    )


app = verb(models)
