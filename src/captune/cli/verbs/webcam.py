from __future__ import annotations

import json as jsonlib
import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Model, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import note, print_line
from captune.core.film_options import WebcamConfig


def webcam(
    chosen: Chosen,
    model: Model = None,
    save: Annotated[
        str | None, typer.Option("--save", metavar="DIR", help="Folder for the pictures that were captioned.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print a line of JSON for each caption.")] = False,
    quiet: Quiet = False,
) -> None:
    """Caption what a camera sees, every few seconds, until Ctrl-C.

    There is no window: captions are lines of text.
    """
    import sys

    from captune.app.webcam import webcam as look
    from captune.data.writers.row import caption_json
    from captune.data.writers.writer import one_line

    progress = TerminalProgress(quiet=quiet)
    glimpses = look(model=model, save=save, progress=progress, environment=os.environ, **chosen.flags)
    try:
        for seen in glimpses:
            if json:
                row = {"time": seen.when.isoformat(timespec="milliseconds"), "seconds": round(seen.seconds, 3)}
                row |= caption_json(seen.captions[0])
                if len(seen.captions) > 1:
                    row["captions"] = [caption_json(caption) for caption in seen.captions]
                print_line(
                    jsonlib.dumps(row if seen.frame is None else {**row, "frame": seen.frame}, ensure_ascii=False)
                )
            else:
                for said in seen.captions:
                    print_line(f"{seen.when:%H:%M:%S}  {said.confidence:.2f}  {one_line(said.text)}")
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not quiet:
            note("Stopped.")
    finally:
        glimpses.close()


app = verb(webcam, WebcamConfig, sources=())
