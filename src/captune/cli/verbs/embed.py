from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Matcher, Quiet, verb
from captune.cli.progress import warn_failed
from captune.cli.terminal import next_commands, out_json, print_line
from captune.core.errors import EXIT_SOME_IMAGES_FAILED


def embed(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Images, folders, globs.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE.npz", help="File for the vectors.")],
    chosen: Chosen,
    model: Matcher = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Vectors of images in the space that texts share, as .npz: images, vectors, model.

    captune match accepts this file instead of the images, so that images are encoded only once.
    """
    from captune.inference.match import embed as embed_images

    found = chosen.call(embed_images, pictures, out, model=model, quiet=quiet)
    if json:
        out_json({"file": out, "pictures": len(found.images), "size": found.vectors.shape[1], "failed": found.failed})
    else:
        print_line(out)
    warn_failed(found.failed.items())
    if not quiet and not json:
        named = ["--model", model] if model else []
        next_commands(["captune", "match", out, "--text", "a dog on a beach", "--find", "pictures", *named])
    if found.failed:
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED)


app = verb(embed)
