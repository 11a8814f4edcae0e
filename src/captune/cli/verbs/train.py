from __future__ import annotations

import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.core.options import TrainConfig


def train(
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="DIR", envvar="DATA_DIR", help="Folder made by captune prepare.")
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="MODEL", help="Folder, run, Hub id, or new:FAMILY-SIZE from scratch."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.")],
    chosen: Chosen,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint, exactly as if never stopped.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on prepared data, or train one from scratch.

    Options come from defaults, then --preset, --config, environment, flags, --set; the
    later wins. The run keeps them all in config.yaml.
    """
    from captune.app.train import train as learn

    result = learn(
        data,
        model,
        out,
        resume=resume,
        progress=TerminalProgress(quiet=quiet),
        environment=os.environ,
        **chosen.sources,
        **chosen.flags,
    )
    print(result, json)


app = verb(train, TrainConfig)
