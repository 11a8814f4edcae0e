from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from captune.cli.flags import APP, Json, NestedVerbs
from captune.cli.terminal import SCALE, hundred, note, out_json, out_table, print_line
from captune.core.runs import IN_WORDS

if TYPE_CHECKING:
    from captune.training.runs import RunSummary

app = typer.Typer(help="List, show and compare training runs.", cls=NestedVerbs, no_args_is_help=True, **APP)
SHOWN_SCORES = ("loss", "bleu_4", "rouge_l", "cider")


@app.command("list")
def list_(
    folder: Annotated[
        str, typer.Argument(metavar="[FOLDER]", help="Folder that holds runs.", show_default=False)
    ] = "runs",
    json: Json = False,
) -> None:
    """The runs in a folder (default: runs), oldest first, with their best scores."""
    from captune.training.runs import list_runs

    found = list_runs(folder)
    if json:
        out_json([run.to_json() for run in found])
        return
    if not found:
        note(f"No runs in {folder}. Make one with: captune train --data DIR --model MODEL --out {folder}/NAME")
        return
    columns = ("run", "created", "state", "model", "epochs", *SHOWN_SCORES, "checkpoints", "size")
    out_table("", columns, [_row(run) for run in found])
    for run in found:
        if run.problem:
            note(f"{run.path}: {run.problem}")
    note(SCALE)


@app.command("show")
def show(run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")], json: Json = False) -> None:
    """One run: its options, validations, checkpoints and evaluation."""
    from captune.training.runs import show_run

    detail = show_run(run)
    if json:
        out_json(detail.to_json())
        return
    summary = detail.summary
    facts = {
        "model": summary.model,
        "data": detail.manifest.get("data", ""),
        "created": summary.created,
        "state": summary.state,
        "trained": f"{summary.epochs:g} epochs, {summary.steps} steps",
        "ended": summary.ended,
        "checkpoints": ", ".join(summary.checkpoints) or "none",
        **summary.pointers,
        "size": _size(summary.size),
        "command": detail.manifest.get("command", ""),
    }
    for name, value in facts.items():
        print_line(f"{name:<12} {_flat(value)}")
    for name, what in summary.damaged.items():
        note(f"{name} is damaged: {what}.")
    if detail.validations:
        names = list(dict.fromkeys(key for line in detail.validations for key in line if key.startswith("eval_")))
        names = [name for name in names if name.removeprefix("eval_") in summary.best]
        rows = [
            (f"{line.get('epoch', 0):g}", line.get("step", ""), *(_cell(name, line.get(name)) for name in names))
            for line in detail.validations
        ]
        print_line("")
        out_table("Validations", ("epoch", "step", *(n.removeprefix("eval_") for n in names)), rows, numbers=True)
        note(SCALE)


@app.command("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs.")], json: Json = False
) -> None:
    """Compare runs over their epochs: every validation and which rules choose it; differences in options."""
    from captune.training.runs import compare_runs

    comparison = compare_runs(runs)
    if json:
        out_json(comparison.to_json())
        return
    names = [run.path for run in comparison.runs]
    for run, steps in zip(comparison.runs, comparison.validations, strict=True):
        scores = list(dict.fromkeys(name for step in steps for name in step.scores))
        rows = [
            (
                f"{step.epoch:g}",
                str(step.step),
                *(_cell(name, step.scores.get(name)) for name in scores),
                step.checkpoint or "not kept",
                ", ".join(step.picked_by),
            )
            for step in steps
        ]
        out_table(f"{run.path}: {run.model}", ("epoch", "step", *scores, "checkpoint", "best by"), rows)
    if len(names) == 1:
        note(SCALE)
        return
    if comparison.differences:
        rows = [(key, *(_flat(value) for value in values)) for key, values in comparison.differences.items()]
        out_table("Options that differ", ("option", *names), rows)
    else:
        note("Model, data and options are the same.")
    scores = list(dict.fromkeys(name for run in comparison.runs for name in run.best))
    rows = [(f"best {name}", *(_best(run, name) for run in comparison.runs)) for name in scores]
    rows += [
        ("epochs", *(f"{run.epochs:g}" for run in comparison.runs)),
        ("state", *(map(_state, comparison.runs))),
        ("checkpoints", *(str(len(run.checkpoints)) for run in comparison.runs)),
        ("size", *(_size(run.size) for run in comparison.runs)),
    ]
    out_table("Best validation (epoch)", ("", *names), rows, numbers=True)
    note(SCALE)


def _row(run: RunSummary) -> tuple[str, ...]:
    scores = (hundred(name, run.best[name].value) if name in run.best else "" for name in SHOWN_SCORES)
    created = run.created[:16].replace("T", " ")
    head = (run.path, created, _state(run), run.model, f"{run.epochs:g}")
    return (*head, *scores, str(len(run.checkpoints)), _size(run.size))


def _state(run: RunSummary) -> str:
    """Finished or stopped, and why, where that is not the plan."""
    ordinary = run.reason in ("", IN_WORDS["all-epochs"], IN_WORDS["max-steps"]) or run.problem
    return run.state if ordinary else f"{run.state}: {run.reason}"


def _best(run: RunSummary, name: str) -> str:
    best = run.best.get(name)
    return f"{hundred(name, best.value)} ({best.epoch:g})" if best else "-"


def _cell(name: str, value: Any) -> str:
    return hundred(name.removeprefix("eval_"), value) if isinstance(value, int | float) else ""


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(str(part) for part in value)
    return "" if value is None else str(value)


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"
