from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import note, out_json, out_table
from captune.core.wording import counted


def review(
    captions: Annotated[
        str, typer.Argument(metavar="CAPTIONS", help="File or folder of captions: captune's, or any that score reads.")
    ],
    chosen: Chosen,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a page with thumbnails.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the captions that are most likely wrong: failed images, empty captions, then the least confident.

    Unreadable rows are listed first, with their line. Captions that repeat a phrase, or that several images share,
    are flagged.
    """
    from captune.evaluation.review import review as review_captions

    found = chosen.call(review_captions, captions, html=html, quiet=quiet)
    if json:
        out_json(found.to_json())
        return
    rows = [
        (
            "-" if row.confidence is None else f"{row.confidence:.2f}",
            row.caption,
            row.image,
            "; ".join(f"{flag}: {why}" for flag, why in row.flags.items()),
        )
        for row in found.rows
    ]
    out_table("", ("sure", "caption", "picture", "flags"), rows)
    if not quiet:
        flags = "".join(f", {count:,} {flag}" for flag, count in found.flags.items())
        note(f"{len(found.rows):,} of {counted(found.pictures, 'image')}{flags}")


app = verb(review)
