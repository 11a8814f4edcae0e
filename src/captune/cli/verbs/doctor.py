from dataclasses import asdict
from typing import Annotated

import typer

from captune.cli.flags import Json, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import console, note, out_json
from captune.core.errors import EXIT_FAILURE


def doctor(
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Load this model too and caption with it.")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option("--tracker", metavar="NAME", help="Tracker that has to be ready, e.g. wandb.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check Python, packages, devices, disk, a tiny model of every family, and the logins.

    Every line is ok, warn or fail, with the next step. The exit code is 1 if anything fails.
    """
    from captune.api.doctor import doctor as check_machine
    from captune.api.doctor import failed

    checks = check_machine(model, tracker=tracker, progress=TerminalProgress(quiet=quiet))
    if json:
        out_json({"ok": not failed(checks), "checks": [asdict(check) for check in checks]})
    else:
        _print(checks, quiet)
    if failed(checks):
        raise typer.Exit(EXIT_FAILURE)


def _print(checks: list, quiet: bool) -> None:
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    screen = console()
    width = max(len(check.name) for check in checks)
    for check in checks:
        if quiet and check.status == "ok":
            continue
        line = Text.assemble((f"{check.status:<5}", styles[check.status]), f"{check.name:<{width}}  {check.detail}")
        if check.next:
            line.append(f"\n{'':<{5 + width}}  -> {check.next}", "dim")
        screen.print(line)
    bad = [check.name for check in checks if check.status == "fail"]
    if not quiet:
        note(f"Mend: {', '.join(bad)}." if bad else "Ready.")


app = verb(doctor)
