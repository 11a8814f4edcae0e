from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import evaluation_json, note, out_json, print_reports


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Runs, or folders of evaluations.")],
    chosen: Chosen,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for a report; default: none is written.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluated runs side by side on the same images, with paired tests against the first.

    Scores the captions that captune evaluate wrote in each run; loads no model. With one folder: all its models.
    """
    from captune.evaluation.compare import compare as compare_evaluations

    result = chosen.call(compare_evaluations, runs, out=out, quiet=quiet)
    if json:
        out_json(evaluation_json(result))
        return
    print_reports(result.reports, result.comparisons)
    if result.folder and not quiet:
        note(f"Written: {result.folder}/report.html, with the scores of each image beside it")


app = verb(compare)
