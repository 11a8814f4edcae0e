from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import note, out_json, out_table

if TYPE_CHECKING:
    from captune.export.export import ExportReport


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, runs/x@last, runs/x@checkpoint-N, folder or Hub id.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder to write, missing or empty.")],
    chosen: Chosen,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", metavar="DIR", help="Folder made by captune prepare: score model and export on it."
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split to evaluate.")] = "val",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model as ONNX or OpenVINO files that caption without torch, checked against the original.

    The folder appears only if the export gives the captions of the model; in 8 bits, enough of them.
    """
    from captune.export.export import export as export_model

    report = chosen.call(export_model, model, out, data=data, split=split, quiet=quiet)
    if json:
        out_json(report.to_json())
        return
    _print(report)
    if not quiet:
        sizes = f"{report.bytes / 1e6:,.1f} MB, the model's weights are {report.weights / 1e6:,.1f} MB"
        note(f"Written: {report.folder} ({report.target}, {report.precision}; {sizes})")


def _print(report: ExportReport) -> None:
    check, scored = report.check, report.score
    rows = [(each.name, check.pictures, f"{each.identical:.1%}", f"{each.speed:.2f}") for each in check.searches]
    if scored is not None:
        rows.append(
            (f"{scored.search}, {scored.split}", scored.pictures, f"{scored.identical:.1%}", f"{scored.speed:.2f}")
        )
    title = f"Against the model on {check.source}; speed: times torch in fp32, here and now."
    out_table(title, ("search", "pictures", "same captions", "speed"), rows, numbers=True)
    if scored is None:
        return
    changes = []
    for name, one in scored.scores.items():
        between = "" if one.low is None or one.high is None else f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
        p = "" if one.p is None else f"{one.p:.3f}"
        changes.append(
            (name, f"{100 * one.model:.1f}", f"{100 * one.export:.1f}", f"{100 * one.difference:+.1f}", between, p)
        )
    out_table("Scores x 100.", ("score", "model", "export", "change", "95 % interval", "p"), changes, numbers=True)


app = verb(export)
