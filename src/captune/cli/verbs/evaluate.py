import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Data, Json, Quiet, verb
from captune.cli.terminal import evaluation_json, note, out_json, print_captions, print_reports


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Run, runs/x@last, runs/x@checkpoint-N, runs/x@all, folder, export or Hub id."
        ),
    ],
    data: Data,
    chosen: Chosen,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split to evaluate.")] = "test",
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
    """Caption a split and score the captions against its references."""
    from captune.evaluation.evaluate import evaluate as evaluate_model

    result = chosen.call(evaluate_model, model, data, split=split, against=tuple(against or ()), out=out, quiet=quiet)
    if int(os.environ.get("RANK", "0")):
        return  # the first of the processes speaks for all
    shown = result.shown(result.shown_captions)
    if json:
        out_json({"split": split, **evaluation_json(result), "captions": shown})
        return
    print_reports(result.reports, result.comparisons)
    if quiet:
        return
    print_captions(shown, len(result.records))
    if result.folder:
        note(f"Written: {result.folder}/report.html, with the scores of each image beside it")


app = verb(evaluate)
