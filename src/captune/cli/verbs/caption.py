from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Model, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import live_stdout, print_line
from captune.core.config import resolve
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED, UsageError
from captune.core.options import CaptionConfig


def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, folders, globs, tar shards, Parquet, hf:NAME, s3://..., or - for a list on stdin.",
        ),
    ],
    chosen: Chosen,
    model: Model = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="PATH", help="File or folder for the captions, not stdout.")
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="DIR", help="Folder for heat maps of where the model looked for each word (PNG, JSON)."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Caption pictures.

    A picture that cannot be read does not stop the others: its reason is shown, and the
    exit code is 3 (1 if none could be captioned).
    """
    from captune.app.caption import caption as say
    from captune.data.writers import open_writer

    progress = TerminalProgress(quiet=quiet)
    told = chosen.sources
    options = resolve(
        CaptionConfig, file=told["config"], environment=os.environ, flags=chosen.flags, sets=told["sets"]
    ).values.caption
    rows = say(
        list(_named(inputs)),
        model=model,
        explain=explain,
        progress=progress,
        environment=os.environ,
        **told,
        **chosen.flags,
    )
    good = bad = 0
    bare = options.format == "text" and out in (None, "-") and _one_picture(inputs)
    with open_writer(options.format, out, live_stdout(), in_place=options.in_place) as writer:
        for row in rows:
            if bare:
                for said in row.captions:
                    print_line(said.text)
            else:
                writer.write(row)
            if row.status == "ok":
                good += 1
            else:
                bad += 1
                progress.warn(f"{row.image}: {row.error}")
    for remark in getattr(writer, "notes", ()):
        progress.say(remark)
    if bad:
        progress.warn(f"{bad} of {good + bad} pictures could not be captioned.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if good else EXIT_FAILURE)


def _one_picture(inputs: list[str]) -> bool:
    """Whether one picture was named: then its caption needs no name before it."""
    from captune.data.bulk.listing import is_picture_file

    return len(inputs) == 1 and is_picture_file(inputs[0])


def _named(inputs: list[str]) -> Iterator[str]:
    """The inputs, with `-` replaced by the lines of stdin."""
    for name in inputs:
        if name != "-":
            yield name
            continue
        if sys.stdin.isatty():
            raise UsageError(
                "'-' reads paths from stdin, but nothing is piped in.", "For example: ls *.jpg | captune caption -"
            )
        yield from (line for line in (raw.rstrip("\r\n") for raw in sys.stdin) if line.strip())


app = verb(caption, CaptionConfig, sources=("config", "sets"))
