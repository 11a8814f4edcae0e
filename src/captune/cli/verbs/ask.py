from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captune.captions.row import known, shown_confidence
from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.progress import warn_failed
from captune.cli.terminal import out_json, out_table, print_line
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED, UsageError

if TYPE_CHECKING:
    from captune.api.caption import Answer


def ask(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE... QUESTION", help="Images, then the question.")],
    chosen: Chosen,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Folder or Hub id. (default Salesforce/blip-vqa-base)"),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask a question about images: captune ask photo.jpg 'what is the man holding?'."""
    from captune.api.caption import ask as ask_model

    *paths, question = pictures
    if not paths:
        raise UsageError("A question is missing, or an image.", "captune ask photo.jpg 'what colour is the car?'")
    answers = chosen.call(ask_model, paths, question, model=model, quiet=quiet)
    if json:
        out_json([_row(answer) for answer in answers])
    elif len(answers) == 1 and not answers[0].error:
        print_line(answers[0].answer)
    else:
        rows = [(a.answer, shown_confidence(a.confidence), a.image) for a in answers if not a.error]
        out_table("", ("answer", "sure", "picture"), rows)
    failed = [(answer.image, answer.error) for answer in answers if answer.error]
    warn_failed(failed)
    if failed:
        raise typer.Exit(EXIT_FAILURE if len(failed) == len(answers) else EXIT_SOME_IMAGES_FAILED)


def _row(answer: Answer) -> dict[str, Any]:
    row = {**asdict(answer), "confidence": known(answer.confidence)}
    if answer.original is None:
        del row["original"]
    return row


app = verb(ask)
