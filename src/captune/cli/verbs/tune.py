from __future__ import annotations

from typing import Annotated

import typer

from captune.cli.flags import Chosen, Data, Json, Quiet, verb
from captune.cli.terminal import next_commands, out_json, out_table


def tune(
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the search; it goes on there.")],
    data: Data,
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="As for captune train.")],
    chosen: Chosen,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="OPTION=VALUES",
            help="What is drawn: learning_rate=1e-5..1e-3:log, batch_size=4|8|16, label_smoothing=0..0.2. Repeatable.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for good training options: short trainings with drawn values, judged by their validations.

    Takes the options of captune train as well; they hold for all trials. The same command goes on with a search that
    was stopped. A trial that fails does not end it; one that lags behind is cut short.
    """
    from captune.training.tune import tune as find

    done = chosen.call(find, data, model, out, space=search or (), quiet=quiet)
    if json:
        found = {"folder": done.folder, "best": done.best, "value": done.value, "options": done.options}
        out_json({**found, "trials": done.states})
        return
    trials = ", ".join(f"{count} {state}" for state, count in done.states.items())
    rows = [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in done.options.items()]
    out_table(f"{done.best}: {done.value:.4f} ({trials})", ("option", "best"), rows)
    if not quiet:
        flags = [word for name, value in done.options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        next_commands(["captune", "train", "--data", data, "--model", model, "--out", "runs/tuned", *flags])


app = verb(tune)
