from __future__ import annotations

import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.core.options import DEFAULT_MODEL
from captune.core.serve_options import ServeConfig


def serve(
    chosen: Chosen,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="[NAME=]MODEL",
            help=f"Run, runs/x@last, folder, export or Hub id; repeatable. (default {DEFAULT_MODEL})",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Caption pictures over HTTP: a REST API, and OpenAI's chat completions.

    Keys come from CAPTUNE_API_KEYS (name=key,name=key) and --keys-file, never from flags. SIGTERM answers what was
    accepted, then stops.
    """
    from captune.web.server import serve as run

    run(
        model or [DEFAULT_MODEL],
        progress=TerminalProgress(quiet=quiet),
        environment=os.environ,
        **chosen.sources,
        **chosen.flags,
    )


app = verb(serve, ServeConfig, sources=("config", "sets"))
