from __future__ import annotations

import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import note, out_json, print_captions, print_reports


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, runs/x@last, runs/x@all, folder, export or Hub id.")
    ],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="DIR", envvar="DATA_DIR", help="Folder made by captune prepare.")
    ],
    chosen: Chosen,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split to measure on.")] = "test",
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="MODEL", help="Another model, on the same images. Repeatable."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the reports; default: the run, if MODEL is one."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Caption a split and measure the captions against its references."""
    from captune.evaluation.evaluate import evaluate as measure

    result = measure(
        model,
        data,
        split=split,
        against=tuple(against or ()),
        out=out,
        progress=TerminalProgress(quiet=quiet),
        **chosen.sources,
        **chosen.flags,
    )
    if int(os.environ.get("RANK", "0")):
        return  # the first of the processes speaks for all
    shown = result.shown(result.shown_captions)
    if json:
        out_json(
            {
                "split": split,
                "folder": result.folder and str(result.folder),
                "models": {name: report.to_json(per_image=False) for name, report in result.reports.items()},
                "differences": result.differences(),
                "relative": result.relative(),
                "captions": shown,
                "comparisons": result.comparisons_json(),
            }
        )
        return
    print_reports(result.reports, result.comparisons)
    if not quiet:
        print_captions(shown, len(result.records))
    if result.folder and not quiet:
        note(f"Written: {result.folder}/report.html, with the scores of each image beside it")


app = verb(evaluate)
