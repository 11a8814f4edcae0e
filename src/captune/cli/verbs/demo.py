from __future__ import annotations

from typing import Annotated

import typer

from captune.cli.flags import Json, Quiet, verb
from captune.cli.progress import TerminalProgress


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
    print(result, json)


app = verb(demo)
