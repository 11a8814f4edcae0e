from dataclasses import asdict
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import note, out_json, print_line
from captune.core.wording import counted


def push(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Run (runs/x, runs/x@last, runs/x@checkpoint-N) or folder with a model."),
    ],
    chosen: Chosen,
    repo: Annotated[
        str | None, typer.Argument(metavar="[REPO]", help="user/name on the Hub; default: HF_REPO_NAME.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder to --out and send nothing.")] = False,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of a dry run; default: NAME-hub.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Upload a model to the Hugging Face Hub with a card: scores and intervals, settings, samples, licences.

    It loads with plain transformers. Files that only a training needs (optimizer, random state) are not uploaded.
    """
    from captune.export.push import push as push_model

    done = chosen.call(push_model, model, repo, dry_run=dry_run, out=out, quiet=quiet)
    if json:
        out_json(asdict(done))
        return
    print_line(done.address or done.folder)
    if dry_run:
        note(f"{counted(len(done.files), 'file')}, nothing sent. Look at {done.folder}/README.md.")


app = verb(push)
