from __future__ import annotations

import os
from typing import Annotated

import typer

from captune.cli.flags import Chosen, verb
from captune.cli.terminal import note
from captune.core.config import resolve
from captune.core.options import DEFAULT_MODEL, AppConfig


def app(
    chosen: Chosen,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="[NAME=]MODEL",
            help=f"Folder, run or Hub id. Repeatable. (default {DEFAULT_MODEL})",
        ),
    ] = None,
) -> None:
    """A page in the browser that captions pictures: several models side by side, variations, downloads."""
    from captune.core.model_names import local_folder
    from captune.web.browser import run_page
    from captune.web.names import named
    from captune.web.settings import PageSettings

    values = resolve(AppConfig, environment=os.environ, flags=chosen.flags).values
    models = named(model or [DEFAULT_MODEL], short=True)
    for name in models.values():
        local_folder(name)
    note(f"The app is at http://{values.app.host}:{values.app.port} (Ctrl-C ends it). Models: {', '.join(models)}.")
    first = values.translation.language
    languages = dict.fromkeys([*filter(None, (first,)), "", *values.app.languages])
    run_on = values.run_on.model_dump(exclude_defaults=True)
    run_page(PageSettings(models, run_on, list(languages), values.translation.translator), values.app)


app = verb(app, AppConfig, sources=())
