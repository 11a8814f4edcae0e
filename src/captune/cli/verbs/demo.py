from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from captune.cli.flags import Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import hundred, next_commands, note, out_json, out_table


def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder for the data, the run and the report.")
    ] = "captune-demo",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """All steps on built-in scenes: prepare, train, evaluate, caption.

    Needs no network and no downloaded weights; about three minutes on two cores.
    """
    from captune.api.demo import demo as run_demo

    result = run_demo(out, progress=TerminalProgress(quiet=quiet))
    if json:
        out_json(asdict(result))
        return
    labels = {"objects_named": "objects named right", "all_true": "all of it true"}
    scores = {model: asdict(score) for model, score in result.scores.items()}
    rows = [(labels.get(name, name), *(hundred(name, s[name]) for s in scores.values())) for name in scores["trained"]]
    out_table(f"{result.images:,} held-out images", ("", *scores), rows, numbers=True)
    shown = [(Path(row.image).name, row.untrained, row.trained, "yes" if row.right else "no") for row in result.rows]
    out_table(f"Captions, drawn in {result.sheet}", ("picture", "untrained", "trained", "right"), shown)
    if not quiet:
        note("Scores x 100.")
        next_commands(*result.next)


app = verb(demo)
