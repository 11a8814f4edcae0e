from dataclasses import asdict
from typing import Annotated

import typer

from captune.cli.flags import Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import next_commands, note, out_json, out_table


def convert(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Weights that torch.save or safetensors wrote, or a folder of them.")
    ],
    like: Annotated[
        str, typer.Option("--like", metavar="MODEL", help="Model of the same kind: folder, run, Hub id, VISION+TEXT.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder to write, missing or empty.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Take weights that FILE lacks from --like, and list them.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a model folder from a weights file (weights.pt, checkpoint.pth): a state dict of a training script.

    No code in FILE is run. The new folder works with every command and loads in transformers.
    """
    from captune.export.convert import convert as convert_weights

    done = convert_weights(file, like, out, partial=partial, progress=TerminalProgress(quiet=quiet))
    if json:
        out_json(asdict(done))
        return
    without = f", without {done.prefix}" if done.prefix else ""
    rows = [
        ("weights", f"{done.matched:,} of {done.place or 'the file'}{without}"),
        ("like", f"{done.like} ({done.family})"),
        ("as in --like", _some(done.kept)),
        ("not used", _some(done.unused)),
        ("also in the file", _some(done.also)),
    ]
    out_table("", ("", done.folder), [row for row in rows if row[1]])
    if not quiet:
        note("Whether it captions as where it was trained is shown by an image that was captioned there.")
        next_commands(["captune", "caption", "photo.jpg", "--model", str(done.folder)])


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" … ({len(names) - 5} more)" if len(names) > 5 else "")


app = verb(convert)
