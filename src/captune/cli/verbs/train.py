import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Json, Quiet, print_resolved, verb
from captune.cli.terminal import SCALE, hundred, next_commands, note, out_json, out_table
from captune.core.runs import Run


def train(
    chosen: Chosen,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="DIR", envvar="DATA_DIR", help="Folder made by captune prepare."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Folder, run, Hub id, or new:FAMILY-SIZE from scratch."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            metavar="",
            help="Continue from the run's last checkpoint, with the same result as without a stop.",
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", metavar="", help="Print every option, its value and where it comes from.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on prepared data, or train one from scratch.

    Options come from defaults, then --preset, --config, environment, flags, --set; the
    later wins. The run keeps them all in config.yaml.
    """
    if print_config:
        print_resolved("train", chosen, json=json)
        return
    from captune.training.train import train as train_model

    result = chosen.call(train_model, data, model, out or "", resume=resume, quiet=quiet)
    if int(os.environ.get("RANK", "0")):
        return  # the first of the processes speaks for all
    if json:
        out_json({"run": str(result.run), "best": str(result.best), "metrics": result.metrics})
        return
    scores = {name.removeprefix("eval_"): value for name, value in result.metrics.items() if name.startswith("eval_")}
    rows = [(name, hundred(name, value)) for name, value in scores.items() if isinstance(value, int | float)]
    out_table(f"{result.run}: validation of {result.best.name}", ("", "best"), rows, numbers=True)
    if not quiet:
        note(SCALE)
        began = {"data": data, "model": model} if data and model else Run(result.run).manifest()
        _advise(str(result.run), str(began["data"]), str(began["model"]), answers="vqa_accuracy" in scores)


def _advise(run: str, data: str, model: str, *, answers: bool) -> None:
    before = f"{run}@checkpoint-0" if model.startswith("new:") else model
    against = ["--against", before] if before else []
    next_commands(
        ["captune", "evaluate", run, "--data", data, *against],
        ["captune", *(("ask", "PICTURE.jpg", "QUESTION") if answers else ("caption", "PICTURE.jpg")), "--model", run],
        ["captune", "runs", "show", run],
    )


app = verb(train)
