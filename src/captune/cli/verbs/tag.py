from __future__ import annotations

from typing import Annotated, Any

import typer

from captune.cli.flags import Chosen, Json, Matcher, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import live_stdout, out_json, print_line
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED
from captune.core.wording import counted


def tag(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs.")],
    chosen: Chosen,
    model: Matcher = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="PATH", help="File or folder for the keywords, not stdout.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keywords of images: the labels of a file that a matcher finds in them, or that their captions mention.

    They are printed, written into text files beside the images, or into the images' own keywords; what a person wrote
    there stays. An image that cannot be read stops nothing; the exit code is 3 then (1 if none could be tagged).
    """
    from captune.api.tag import tag as tag_images
    from captune.captions.tags.writers import BETWEEN, open_tag_writer
    from captune.datasets.sources.listing import is_image_file

    progress = TerminalProgress(quiet=quiet)
    resolved = chosen.resolve("tag")
    options = resolved.values.tag
    on_screen = out in (None, "-") and options.format in ("text", "json", "jsonl", "csv")
    bare = on_screen and options.format == "text" and len(inputs) == 1 and is_image_file(inputs[0])
    format = "json" if json and on_screen else options.format
    good = 0
    failed: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    with open_tag_writer(format, out, live_stdout(), in_place=options.in_place, existing=options.existing) as writer:
        for row in tag_images(inputs, model=model, config=resolved, progress=progress):
            if bare and not json and row.status == "ok":
                print_line(BETWEEN.join(keyword.text for keyword in row.keywords))
            else:
                writer.write(row)
            reason = getattr(writer, "unwritten", {}).get(row.image, row.error)
            if reason is not None:
                failed[row.image] = reason
                progress.warn(f"{row.image}: {reason}")
            else:
                good += 1
            if json and not on_screen:
                rows.append(row.to_json())
    if json and not on_screen:
        out_json({"images": rows, "failed": failed})
    for remark in writer.notes:
        progress.info(remark)
    if failed:
        progress.warn(f"{len(failed):,} of {counted(good + len(failed), 'image')} could not be tagged.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if good else EXIT_FAILURE)


app = verb(tag)
