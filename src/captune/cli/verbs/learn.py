import os
from typing import Annotated, Any

import typer

from captune.cli.flags import Chosen, Json, Quiet, verb
from captune.cli.terminal import SCALE, hundred, next_commands, note, out_json, out_table, print_line
from captune.core.wording import counted, listed


def learn(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of a library.")],
    chosen: Chosen,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="Model that learns: folder, run or Hub id.")
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach a model what people wrote or approved in a library, and test it against what it was.

    A fifth of the images is held out for good. The new model and the former caption them, and are compared image by
    image; intervals say what can be concluded. Nothing is captioned again by this command.
    """
    from captune.library.learn import learn as learn_round

    found = chosen.call(learn_round, folder, model, quiet=quiet)
    if int(os.environ.get("RANK", "0")):
        return  # the first of the processes speaks for all
    if json:
        out_json(found.to_json())
        return
    rows = [
        (name, hundred(name, found.former[name]), hundred(name, found.new[name]), _interval(name, one))
        for name, one in found.differences.items()
    ]
    title = f"Round {found.number}: learned from {counted(found.train, 'image')}, held out {found.images:,}"
    out_table(title, ("score", "former", "new", "difference [95 %]"), rows, numbers=True)
    print_line(_sentence(found))
    if quiet:
        return
    note(f"{SCALE} Written: {found.report}")
    if found.verdict != "worse":
        next_commands(["captune", "library", "caption", folder, "--model", found.run, "--by", "model"])


def _interval(name: str, one: Any) -> str:
    low, high = sorted((one["low"], one["high"]))
    return f"{hundred(name, one['value'])} [{hundred(name, low)}, {hundred(name, high)}]"


def _sentence(found: Any) -> str:
    text = {
        "better": "The new model is better on captions that it did not see.",
        "worse": "The new model is worse on captions that it did not see: keep the former.",
        "not told apart": "The two models cannot be told apart on these images.",
    }[found.verdict]
    if found.otherwise:
        from captune.metrics import spec_of

        state = "worse" if found.verdict == "better" else "better"
        names = listed(spec_of(name).label for name in found.otherwise)
        text += f" By {names} it is {state}: read some of its captions before you decide."
    few = f" With {counted(found.images, 'image')} held out this says little: correct more, and learn again."
    return text if found.enough else text + few


app = verb(learn)
