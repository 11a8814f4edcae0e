from captune.cli.flags import Chosen, Models, verb
from captune.cli.terminal import note
from captune.core.options import DEFAULT_MODEL


def app(chosen: Chosen, model: Models = None) -> None:
    """A page in the browser that captions images: several models side by side, variations, downloads."""
    from captune.inference.loading import check_name
    from captune.server.page import PageSettings, run_page
    from captune.server.startup import parse_models

    values = chosen.resolve("app").values
    models = parse_models(model or [DEFAULT_MODEL], short=True)
    for name in models.values():
        check_name(name)
    note(f"The app is at http://{values.app.host}:{values.app.port} (Ctrl-C ends it). Models: {', '.join(models)}.")
    first = values.translation.language
    languages = dict.fromkeys([*filter(None, (first,)), "", *values.app.languages])
    options = {**values.run_on.model_dump(exclude_defaults=True), **values.endpoint.model_dump(exclude_defaults=True)}
    run_page(PageSettings(models, options, list(languages), values.translation.translator), values.app)


app = verb(app)
