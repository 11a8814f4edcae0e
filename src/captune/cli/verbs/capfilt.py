from dataclasses import asdict
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Data, Json, Quiet, verb
from captune.cli.progress import warn_failed
from captune.cli.terminal import next_commands, note, out_json, out_table
from captune.core.options import DEFAULT_MATCHER


def capfilt(
    data: Data,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder for the cleaned set.")],
    chosen: Chosen,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Captioner; default: Salesforce/blip-image-captioning-base."
        ),
    ] = None,
    matcher: Annotated[
        str | None,
        typer.Option("--matcher", metavar="MODEL", help=f"Matcher, as of captune match; default: {DEFAULT_MATCHER}."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Clean noisy image-text pairs: a captioner adds captions, a matcher keeps the texts that fit their image.

    Writes captions.jsonl (captune prepare reads it), and report/ with the probability of each dropped text.
    """
    from captune.api.capfilt import capfilt as clean_texts

    done = chosen.call(clean_texts, data, out, model=model, matcher=matcher, quiet=quiet)
    if json:
        out_json({**asdict(done), "folder": str(done.folder)})
        return
    rows = [(kind, str(done.kept[kind]), str(done.dropped[kind])) for kind in done.kept]
    title = f"{done.folder}: {done.pictures} images with text, {done.empty} without"
    out_table(title, ("texts", "kept", "dropped"), rows)
    if done.cut:
        note(f"Of {done.cut:,} texts the matcher read only the beginning: they are longer than it reads.")
    warn_failed(done.failed.items())
    if not quiet:
        next_commands(["captune", "prepare", str(done.folder), "--out", "data-clean"])


app = verb(capfilt)
