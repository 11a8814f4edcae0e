from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from captune.cli.flags import Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import next_commands, out_json


def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder for the data, the run and the report.")
    ] = "captune-demo",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The whole way on built-in scenes: prepare, train, evaluate, caption.

    Needs no network and no downloaded weights; about three minutes on two cores.
    """
    from captune.app.demo import demo as show

    result = show(out, progress=TerminalProgress(quiet=quiet))
    if json:
        out_json(asdict(result))
    elif not quiet:
        next_commands(["captune", "runs", "show", f"{out}/run"], ["captune", "doctor"])


app = verb(demo)
