from __future__ import annotations

import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import note, out_json, out_table
from captune.core.export_options import ExportConfig


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Run, runs/x@last, folder or Hub id.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder to write, missing or empty.")],
    chosen: Chosen,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model as ONNX or OpenVINO files that caption without torch, checked against the original.

    The folder appears only when the export says what the model says.
    """
    from captune.app.export import export as write

    report = write(model, out, progress=TerminalProgress(quiet=quiet), environment=os.environ, **chosen.flags)
    if json:
        out_json(report.to_json())
        return
    rows = [(search.name, f"{search.identical:.0%}", f"{search.speed:.2f}×") for search in report.check.searches]
    out_table("", ("search", "same captions", "speed"), rows, numbers=True)
    note(f"Written: {report.folder}, {report.megabytes:,.1f} MB")


app = verb(export, ExportConfig, sources=())
