import logging
import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Quiet, verb


def edit(
    chosen: Chosen,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder of the images; gets a library if it has none.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="[NAME=]MODEL", help="Model that can caption images again; repeatable."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """A page on which people correct the captions of a library: keyboard, find and replace, undo, several models.

    What the page calls saved is on the disk. Keys come from CAPTUNE_API_KEYS (name=key,name=key) and --keys-file, never
    from flags.
    """
    from captune.server.editor.app import edit as run

    chosen.call(run, folder, model or [], quiet=quiet)
    logging.shutdown()
    os._exit(0)  # all is closed; with torch loaded the interpreter's own end takes seconds


app = verb(edit)
