from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Matcher, Quiet, verb
from captune.cli.progress import warn_failed
from captune.cli.terminal import out_json, out_table
from captune.core.errors import EXIT_SOME_IMAGES_FAILED, UsageError


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

    A CLIP has no probability of one text: there it is the text's share among all texts of the image. With --find the
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
        shared = any(pair.share is not None for pair in found.pairs)
        chances = [pair.share if shared else pair.probability for pair in found.pairs]
        rows = [
            (f"{chance:.3f}", f"{pair.similarity:.3f}", pair.image, pair.text)
            for chance, pair in zip(chances, found.pairs, strict=True)
        ]
        out_table("", ("share" if shared else "match", "cosine", "picture", "text"), rows)
    warn_failed(found.failed.items())
    if found.failed:
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED)


app = verb(match)
