from typing import Annotated

import typer

from captune.cli.flags import Chosen, Data, Json, Quiet, verb
from captune.cli.terminal import next_commands, out_json, out_table


def tune(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the search; an existing search continues.")
    ],
    data: Data,
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="As for captune train.")],
    chosen: Chosen,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="OPTION=VALUES",
            help="Values to try: learning_rate=1e-5..1e-3:log, batch_size=4|8|16, label_smoothing=0..0.2. Repeatable.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for good training options: short trainings with different values, compared by their validations.

    Also takes the options of captune train, for all trials. The same command continues a stopped search. A failed
    trial does not end it; a poor one is stopped early.
    """
    from captune.training.tune import tune as search_options

    done = chosen.call(search_options, data, model, out, space=search or (), quiet=quiet)
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
