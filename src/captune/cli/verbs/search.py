from __future__ import annotations

from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import note, out_json, out_table, print_line


def search(
    chosen: Chosen,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORDS]", help='Words of captions; "two dogs": together; dog*: a beginning; -cat: not.'
        ),
    ] = None,
    folder: Annotated[str, typer.Option("--in", metavar="FOLDER", help="Folder of the library.")] = ".",
    paths: Annotated[bool, typer.Option("--paths", metavar="", help="Print paths alone, one a line.")] = False,
    like: Annotated[
        str | None, typer.Option("--like", metavar="IMAGE", help="Images that look like this one, best first.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find images of a library by the words of their captions, by what they show, or by what is known of them."""
    from captune.library.library import search as search_library

    found = chosen.call(search_library, " ".join(words or ()), folder, like=like, quiet=quiet)
    if json:
        out_json(found.to_json())
    elif paths:
        for path in found.paths:
            print_line(path)
    elif found:
        out_table(
            "", ("image", "caption", "by"), [(each.path, each.caption, each.model or each.written_by) for each in found]
        )
    else:
        note("No image is like that.")


app = verb(search)
