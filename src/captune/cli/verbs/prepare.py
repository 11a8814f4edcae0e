from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import next_commands, note, out_json, out_table
from captune.core.options import DEFAULT_MODEL, DEFAULT_VQA_MODEL

if TYPE_CHECKING:
    from captune.datasets.prepare import PrepareResult

SHOWN = 20
PROBLEMS = "problems.csv"


def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Folder, file or archive; or flickr8k, flickr30k, coco to download.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder for the splits.")],
    chosen: Chosen,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a dataset into verified train, val and test splits.

    Every image is opened once. The format of the source is detected.
    """
    from captune.datasets.prepare import prepare as prepare_data

    result = chosen.call(prepare_data, source, out, quiet=quiet)
    if json:
        out_json(asdict(result))
        return
    note(f"{result.format}: {result.why}. Split: {result.how}.")
    rows = [(name, f"{count.images:,}", f"{count.references:,}") for name, count in result.splits.items()]
    texts = "answers" if result.questions else "captions"
    out_table(f"{result.folder}", ("split", "pictures", texts), rows, numbers=True)
    if result.questions:
        note(f"{result.questions:,} questions.")
    if result.problems:
        _list_problems(result)
    if quiet:
        return
    for line in result.notes:
        note(line)
    base, new = (DEFAULT_VQA_MODEL, "new:blip-vqa-small") if result.questions else (DEFAULT_MODEL, "new:blip-small")
    next_commands(
        ["captune", "train", "--data", out, "--model", base, "--out", "runs/first"],
        ["captune", "train", "--data", out, "--model", new, "--out", "runs/from-scratch"],
    )


def _list_problems(result: PrepareResult) -> None:
    shown = result.problems[:SHOWN]
    out_table("Left out", ("image or row", "reason"), [(problem.where, problem.reason) for problem in shown])
    if len(result.problems) > SHOWN:
        note(f"... and {len(result.problems) - SHOWN:,} more, see {result.folder / PROBLEMS}.")


app = verb(prepare)
