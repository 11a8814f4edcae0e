from typing import Annotated, Any

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import note, out_json, out_table, print_reports
from captune.metrics.report import MetricReport
from captune.metrics.significance import Difference


def score(
    hypotheses: Annotated[
        list[str],
        typer.Option("--hypotheses", "-H", metavar="FILE", help="Captions, '-' for stdin. Repeatable: side by side."),
    ],
    references: Annotated[
        list[str],
        typer.Option("--references", "-R", metavar="FILE", help="References, '-' for stdin. Repeatable: combined."),
    ],
    chosen: Chosen,
    pictures: Annotated[
        str | None, typer.Option("--pictures", metavar="FOLDER", help="The images, for metrics that need them.")
    ] = None,
    per_image: Annotated[bool, typer.Option("--per-image", help="The scores of every image as well.")] = False,
    save_document_frequencies: Annotated[
        str | None,
        typer.Option("--save-document-frequencies", metavar="FILE", help="Save the document frequencies of CIDEr."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score captions of other programs against references.

    Files that captune prepare reads, COCO results, JSON by id, plain text (line i is image i).
    """
    from captune.evaluation.score import score as score_captions

    result = chosen.call(
        score_captions,
        hypotheses,
        references,
        pictures=pictures,
        save_document_frequencies=save_document_frequencies,
        quiet=quiet,
    )
    for line in result.notes:
        note(line)
    if json:
        out_json(_json(result.reports, result.comparisons, result.notes))
        return
    print_reports(result.reports, result.comparisons, notes=False)  # they are among the result's
    if per_image:
        for name, report in result.reports.items():
            keys = list(dict.fromkeys(key for scores in report.per_image.values() for key in scores))
            rows = [
                (image, *(f"{100 * scores[key]:.1f}" if key in scores else "-" for key in keys))
                for image, scores in report.per_image.items()
            ]
            out_table(name, ("image", *keys), rows, numbers=True)


def _json(
    reports: dict[str, MetricReport], comparisons: dict[str, dict[str, Difference]], notes: tuple[str, ...]
) -> dict[str, Any]:
    """The first file's scores by name, all that is known about them, and the other files beside it."""
    from dataclasses import asdict

    first, *others = reports
    found = {**reports[first].scores, **reports[first].to_json(), "notes": list(notes)}
    del found["scores"]
    if others:
        found["others"] = {name: reports[name].to_json() for name in others}
        found["comparisons"] = {
            name: {key: asdict(difference) for key, difference in found.items()} for name, found in comparisons.items()
        }
    return found


app = verb(score)
