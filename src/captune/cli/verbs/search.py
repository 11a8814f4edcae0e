from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.path_lists import print_paths
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import note, out_json, out_table
from captune.core.errors import UsageError

if TYPE_CHECKING:
    from captune.library.found import DuplicateGroups, FoundImages


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
    null: Annotated[
        bool,
        typer.Option("--null", "-0", metavar="", help="Print paths alone, each ended by NUL, as xargs -0 reads them."),
    ] = False,
    like: Annotated[
        str | None, typer.Option("--like", metavar="IMAGE", help="Images that look like this one, best first.")
    ] = None,
    duplicates: Annotated[
        bool,
        typer.Option("--duplicates", metavar="", help="Groups of images that are there twice: copies, and near ones."),
    ] = False,
    sheet: Annotated[
        str | None,
        typer.Option(
            "--sheet", metavar="FILE", help="Write thumbnails with captions: sheet.html, sheet.jpg, sheet.png."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find images of a library by the words of their captions, by what they show, or by what is known of them."""
    from captune.library.library import Library
    from captune.library.library import search as search_library

    text, values = " ".join(words or ()), chosen.resolve("search").values
    _check_here(folder, values.library.library)
    found: FoundImages | DuplicateGroups
    if duplicates:
        if like is not None:
            raise UsageError("--duplicates compares the images of the library with each other.", "Leave out --like.")
        library = Library(folder, values.library.library)
        found = library.duplicates(text, **values.search.model_dump(), **values.filter.model_dump())
        lines, table = [path for group in found.paths for path in ("", *group)][1:], _duplicates_table(found)
    else:
        found = chosen.call(search_library, text, folder, like=like, quiet=quiet)
        lines, table = found.paths, _images_table(found)
    if sheet is not None:
        found.write_sheet(sheet, text or ("Duplicates" if duplicates else "Images"), TerminalProgress(quiet=quiet))
    if json:
        out_json(found.to_json())
    elif (paths or null) and found:
        print_paths(lines, null=null)
    elif not found:
        note("No image is there twice." if duplicates else "No image was found.")
        for sentence in Library(folder, values.library.library).unknown_names(**values.filter.model_dump()):
            note(sentence)
    elif sheet is None:
        out_table("", *table)
    if sheet is not None and not quiet:
        note(f"Wrote {sheet}.")


def _check_here(folder: str, library: str | None) -> None:
    """Raise `UsageError` where no folder was named, and this one has no library."""
    from captune.library.database import FILE, OWN

    if folder == "." and library is None and not Path(OWN).exists() and not Path(FILE).exists():
        raise UsageError(
            "This folder has no library.", "Name one that has: --in FOLDER, or make one: captune library add ."
        )


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _images_table(found: FoundImages) -> Table:
    return ("image", "caption", "by"), [(each.path, each.caption, each.model or each.written_by) for each in found]


def _duplicates_table(found: DuplicateGroups) -> Table:
    rows: list[tuple[str, ...]] = []
    for number, group in enumerate(found, start=1):
        for place, each in enumerate(group.images):
            is_like = "" if not place else "the same file" if each.exact else "alike"
            size = f"{each.width} x {each.height}" if each.width else "-"
            rows.append((f"{number:,}", each.path, size, f"{each.bytes:,}", is_like, each.caption))
    return ("group", "image", "pixels", "bytes", "against the first", "caption"), rows


app = verb(search)
