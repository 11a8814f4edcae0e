from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Json, Matcher, Quiet, verb
from captune.cli.progress import warn_failed
from captune.cli.terminal import out_json, out_table
from captune.core.errors import EXIT_SOME_IMAGES_FAILED, UsageError

if TYPE_CHECKING:
    from captune.inference.match import Match


def match(
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE...", help="Images, folders, globs, or one .npz of captune embed.")
    ],
    chosen: Chosen,
    text: Annotated[list[str] | None, typer.Option("--text", "-t", metavar="TEXT", help="A text. Repeatable.")] = None,
    texts: Annotated[
        str | None, typer.Option("--texts", metavar="FILE", help="A file with a text on each line.")
    ] = None,
    model: Matcher = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How well texts fit images: the probability that a text is true of an image, and the cosine of their vectors.

    A CLIP has no probability of one text: of several it shows each text's share among them. With --find the
    best are listed; of BLIP's matching the nearest by vector, sorted by probability, as its authors do.
    """
    from captune.inference.match import match as match_texts

    lines = list(text or ())
    if texts:
        try:
            lines += [line.strip() for line in Path(texts).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise UsageError(f"{texts} cannot be read: {error}.", "Give a text file, one text on each line.") from None
    found = chosen.call(match_texts, pictures, lines, model=model, quiet=quiet)
    if json:
        out_json({"pairs": [asdict(pair) for pair in found.pairs], "failed": found.failed})
    else:
        out_table("", *_table(found.pairs))
    warn_failed(found.failed.items())
    if found.failed:
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED)


def _table(pairs: Sequence[Match]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of a table: without a column for what no pair has."""
    heads: tuple[str, ...] = ("cosine", "picture", "text")
    rows: list[tuple[str, ...]] = [(f"{pair.similarity:.3f}", pair.image, pair.text) for pair in pairs]
    for name, head in (("probability", "match"), ("share", "share")):
        values = [getattr(pair, name) for pair in pairs]
        if pairs and None not in values:
            return (head, *heads), [(f"{value:.3f}", *row) for value, row in zip(values, rows, strict=True)]
    return heads, rows


app = verb(match)
