from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import out_json, print_line


def report(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Evaluated run, or folder of an evaluation.")],
    chosen: Chosen,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="The page; default: FOLDER/report.html.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the report of an evaluation: one HTML page that needs no network, the same as Markdown, and figures.

    Reads the files of captune evaluate; loads no model. Prints the path of the page; the other files are beside it.
    """
    from captune.evaluation.report import report as draw_report

    page = chosen.call(draw_report, folder, out=out, quiet=quiet)
    if json:
        out_json({"report": str(page), "bytes": page.stat().st_size})
    else:
        print_line(str(page))


app = verb(report)
