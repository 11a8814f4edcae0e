from __future__ import annotations

from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.core.options import PrepareConfig


def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, file or archive; or flickr8k, flickr30k, coco to download.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder for the splits.")],
    chosen: Chosen,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a dataset into verified train, val and test splits.

    Every picture is opened once. The format is found by looking at the source.
    """
    from captune.app.prepare import prepare as make

    result = make(source, out, progress=TerminalProgress(quiet=quiet), **chosen.flags)
    print(result, json)


app = verb(prepare, PrepareConfig, sources=())
