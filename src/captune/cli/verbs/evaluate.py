from __future__ import annotations

import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import SCALE, hundred, note, out_json, out_table
from captune.core.options import EvaluateConfig
from captune.metrics.report import MetricReport


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Run, runs/x@last, folder or Hub id.")],
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="DIR", envvar="DATA_DIR", help="Folder made by captune prepare.")
    ],
    chosen: Chosen,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split to measure on.")] = "test",
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="MODEL", help="Another model, on the same pictures. Repeatable."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the reports; default: the run, if MODEL is one."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Caption a split and measure the captions against its references."""
    from captune.app.evaluate import evaluate as measure

    result = measure(
        model,
        data,
        split=split,
        against=tuple(against or ()),
        out=out,
        progress=TerminalProgress(quiet=quiet),
        environment=os.environ,
        **chosen.sources,
        **chosen.flags,
    )
    if json:
        out_json(
            {
                "split": split,
                "folder": result.folder and str(result.folder),
                "models": {
                    name: {key: value for key, value in report.to_json().items() if key != "per_image"}
                    for name, report in result.reports.items()
                },
                "differences": result.differences(),
            }
        )
        return
    print_reports(result.reports)
    if result.folder and not quiet:
        note(f"Written, also for each picture: {result.folder}")


def print_reports(reports: dict[str, MetricReport]) -> None:
    """Models side by side; with more than one, what the first has over each of the others."""
    names = list(reports)
    first = reports[names[0]]
    columns = ["", *names, *(f"{names[0]} - {other}" for other in names[1:])]
    rows = []
    for score in dict.fromkeys(score for report in reports.values() for score in report.scores):
        cells = [hundred(score, r.scores[score]) if score in r.scores else "-" for r in reports.values()]
        for other in names[1:]:
            differences = first.difference(reports[other])
            change = hundred(score, differences[score]) if score in differences else "-"
            cells.append(change if change.startswith("-") else f"+{change}")
        rows.append((score, *cells))
    out_table(f"{first.images} pictures, {first.references} references", columns, rows, numbers=True)
    note(SCALE)


app = verb(evaluate, EvaluateConfig)
