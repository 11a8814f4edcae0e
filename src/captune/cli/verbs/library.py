from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captune.cli.flags import APP, CONTEXT, Chosen, Json, Model, NestedVerbs, Quiet, VerbCommand, with_options
from captune.cli.progress import TerminalProgress, warn_failed
from captune.cli.terminal import note, out_json, out_table, print_line
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED
from captune.core.verbs import CAPTION_LIBRARY, EXPORT_LIBRARY, WRITE_LIBRARY
from captune.core.wording import counted

app = typer.Typer(
    help="A folder of images with a memory: images, captions, keywords.", cls=NestedVerbs, no_args_is_help=True, **APP
)

Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of the images.")]
Own = Annotated[
    str | None,
    typer.Option("--library", metavar="DIR", help="Folder of the library's own files; default: .captune in FOLDER."),
]

# So many images that cannot be read are shown.
SHOWN = 20
NOTHING = "No caption is chosen: approve some ({}), or choose others, such as --status draft."


@app.command("add")
def add(
    folder: Folder,
    library: Own = None,
    captions: Annotated[
        list[str] | None,
        typer.Option(
            "--captions", metavar="PATH", help="File, job folder or data set whose captions are taken over. Repeatable."
        ),
    ] = None,
    written_by: Annotated[
        str,
        typer.Option(
            "--written-by",
            metavar="NAME",
            help="Who wrote captions of --captions that do not say it: person, or a model.",
        ),
    ] = "person",
    embed: Annotated[
        str | None,
        typer.Option(
            "--embed",
            metavar="MODEL",
            help="Matcher, as of captune match, that gives images vectors: to search by meaning.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring the library in step with its folder, or begin one.

    New, changed, moved and vanished images are told by their contents, and captions and keywords in the images and
    beside them are taken in. What is known is not opened again; after a stop the same command goes on.
    """
    from captune.library.library import Library

    progress = TerminalProgress(quiet=quiet)
    opened = Library(folder, library, create=True)
    report = opened.add(progress=progress)
    filed = [opened.add_captions(path, written_by=written_by, progress=progress) for path in captions or ()]
    if embed is not None:
        for path, reason in opened.embed(embed, progress=progress).items():
            progress.warn(f"{path}: {reason}")
    if json:
        out_json(report.to_json() | ({"captions": [each.to_json() for each in filed]} if filed else {}))
    elif not quiet:
        others = [f"{count:,} {name}" for name, count in report.to_json().items() if name != "images"]
        note(", ".join([counted(report.images, "image"), *others]) + ".")
        if report.unreadable:
            note(f"Which, and why: {opened.database.command('library status')}")
        for each in filed:
            note(f"Captions of {each.sentence()}.")


def caption(
    chosen: Chosen, folder: Folder, model: Model = None, library: Own = None, json: Json = False, quiet: Quiet = False
) -> None:
    """A model captions the images that have no caption, as drafts.

    With a condition on captions (--flag, --confidence, --by, --status) it captions images whose draft is so, and the
    new draft takes the place of that one. What a person wrote or approved is never touched, and no image captioned
    twice by a model with the same prompt: after a stop the same command goes on.
    """
    from captune.core.options import DEFAULT_MODEL
    from captune.library.library import Library

    progress = TerminalProgress(quiet=quiet)
    config = chosen.resolve(CAPTION_LIBRARY)
    opened = Library(folder, library)
    report = opened.caption(model or DEFAULT_MODEL, progress=progress, config=config)
    warn_failed(report.failed.items())
    if json:
        out_json(report.to_json())
    elif not quiet:
        note(f"{counted(report.drafts, 'draft')}, {report.flagged:,} with flags, {len(report.failed):,} failed.")
        if not (report.drafts or report.failed):
            note("No image is left: those that are chosen have captions, or this model has captioned them.")
            for sentence in opened.unknown_names(**config.values.filter.model_dump()):
                note(sentence)
    if report.failed:
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if report.drafts else EXIT_FAILURE)


app.command("caption", cls=VerbCommand, context_settings=CONTEXT)(with_options(caption, CAPTION_LIBRARY))


def write(chosen: Chosen, folder: Folder, library: Own = None, json: Json = False, quiet: Quiet = False) -> None:
    """Write captions to where other programs read them: text files beside the images, or the images' own fields.

    Without --status those that a person wrote or approved. A file that somebody changed since the library read it
    stays as it is; captune library add reads it in. What stands there already is not written again.

    What was changed of a prepared folder or a job goes into its own files, unless --to or a condition is given.
    """
    from captune.library.library import Library

    progress = TerminalProgress(quiet=quiet)
    opened, resolved = Library(folder, library), chosen.resolve(WRITE_LIBRARY)
    if opened.data_set is not None and not resolved.sources:
        back = opened.write_back(progress=progress)
        if json:
            out_json(back.to_json())
        elif not quiet:
            note(back.sentence())
        return
    report = opened.write(progress=progress, config=resolved)
    warn_failed(report.failed.items())
    for path in report.changed:
        progress.warn(f"{path}: somebody changed its captions there since the library read them")
    if json:
        out_json(report.to_json())
    elif not quiet:
        note(report.sentence())
        if not (report.written or report.unchanged or report.changed or report.failed):
            note(NOTHING.format(opened.database.command("edit")))
    if report.changed:
        note(f"Read in what was changed, then write again: {opened.database.command('library add')}")
    if report.failed or report.changed:
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if report.written or report.unchanged else EXIT_FAILURE)


app.command("write", cls=VerbCommand, context_settings=CONTEXT)(with_options(write, WRITE_LIBRARY))


@app.command("status")
def status(folder: Folder, library: Own = None, json: Json = False) -> None:
    """How many images, captions and keywords there are, and of what kind; why images cannot be read."""
    from captune.library.library import Library
    from captune.library.listing import unreadable

    opened = Library(folder, library)
    found = opened.status()
    if json:
        out_json(found.to_json())
        return
    for name in ("images", "without_caption", "unreadable", "gone", "captions", "keywords"):
        print_line(f"{name.replace('_', ' '):<16} {getattr(found, name):>12,}")
    for title, counts in (("Status", found.statuses), ("By", found.writers), ("Flags", found.flags)):
        if counts:
            out_table("", (title, "captions"), [(name, f"{count:,}") for name, count in counts.items()], numbers=True)
    if found.unreadable:
        out_table("", ("Unreadable", "why"), list(unreadable(opened.database.connection, SHOWN).items()))
        if found.unreadable > SHOWN:
            note(f"... and {found.unreadable - SHOWN:,} more.")


@app.command("check")
def check(
    folder: Folder,
    library: Own = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            metavar="",
            help="Mend it: from what can be read of it, and its last copy. Forget vectors whose file is damaged.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """See whether the library is whole, and copy it into its folder backups if it is."""
    from captune.library.database import DamagedLibrary
    from captune.library.library import Library

    if repair and (mended := Library.repair(folder, library)) is not None:
        note(mended.sentence())
    copy, hint = None, ""
    try:
        opened = Library(folder, library)
        if repair and (count := opened.forget_damaged_vectors()):
            again = opened.database.command("library add", "--embed", "MODEL")
            note(f"The vectors of {counted(count, 'model')} were forgotten. Make them anew: {again}")
        problems, hint = opened.problems(), f"Mend it: {opened.database.command('library check', '--repair')}"
        copy = None if problems else str(opened.back_up())
    except DamagedLibrary as error:
        problems, hint = [error.message], error.hint
    if json:
        out_json({"problems": problems, "backup": copy})
    elif problems:
        for problem in problems:
            print_line(problem)
        note(hint)
    else:
        print_line(f"The library is whole. Copied to {copy}")
    if problems:
        raise typer.Exit(EXIT_FAILURE)


def export(
    chosen: Chosen,
    folder: Folder,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="File to write.")],
    library: Own = None,
    quiet: Quiet = False,
) -> None:
    """Write captions as a file for other trainers, with who wrote them, or all that the library knows.

    Without a format, and where the ending of --out means none, it is JSON Lines of everything: images, captions with
    their history, keywords, vectors. With one it is captions: without --status those that a person wrote or approved.
    """
    from captune.library.library import Library

    progress = TerminalProgress(quiet=quiet)
    opened = Library(folder, library)
    count = opened.export(out, progress=progress, config=chosen.resolve(EXPORT_LIBRARY))
    if count == 0:
        note(NOTHING.format(opened.database.command("edit")))
    elif not quiet:
        note(f"Wrote {out}: " + ("all that the library knows." if count is None else f"{counted(count, 'image')}."))


app.command("export", cls=VerbCommand, context_settings=CONTEXT)(with_options(export, EXPORT_LIBRARY))


@app.command("import")
def import_(
    folder: Folder,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What captune library export wrote.")],
    library: Own = None,
) -> None:
    """Fill an empty library with an export."""
    from captune.library.library import Library
    from captune.library.transfer import check_export

    check_export(Path(file))  # before a library is begun for it
    count = Library(folder, library, create=True).import_from(file)
    note(f"{counted(count, 'image')}.")


@app.command("rounds")
def rounds(folder: Folder, library: Own = None, json: Json = False) -> None:
    """The rounds of learning, and what became of each."""
    from captune.library.learn import rounds as all_rounds

    found = all_rounds(folder, library)
    if json:
        out_json(found)
        return
    if not found:
        note("There is no round yet: captune learn begins one.")
        return
    rows = [
        (each["number"], each["at"], each["model"], each.get("images", ""), each.get("verdict", "stopped"))
        for each in found
    ]
    out_table("", ("round", "begun", "model", "held out", "the new model"), rows)


@app.command("take-back")
def take_back(folder: Folder, library: Own = None) -> None:
    """Forget the last round of learning: its run, and the drafts that its model wrote. What people wrote stays."""
    from captune.library.learn import take_back as forget

    note(f"The last round is forgotten, with {counted(forget(folder, library), 'draft')} of its model.")
