"""Flags made from the options of `captune.core.options`, and the command of a verb."""

import copy
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from captune.cli.progress import TerminalProgress
from captune.cli.terminal import ClickException, message_of, out_json, out_table
from captune.core.aliases import ANSWERS, names_of, plain
from captune.core.config import Leaf, Resolved, leaves, presets, resolve
from captune.core.errors import UsageError, about_option
from captune.core.options import DEFAULT_MATCHER, DEFAULT_MODEL, Options
from captune.core.verbs import VERBS, Verb

T = TypeVar("T")
NoSuchOption: Any = sys.modules[ClickException.__module__].NoSuchOption


class VerbCommand(TyperCommand):
    """Takes `--lr` and `--learning_rate` for `--learning-rate`, without listing them in the help."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        known = {parameter.name: parameter for parameter in self.get_params(ctx) if parameter.name}
        for name, parameter in known.items():
            if parameter.param_type_name != "option":
                continue
            hidden = copy.copy(parameter)
            hidden.opts = [flag for other in names_of(name, known) for flag in _spellings(other)]
            hidden.opts += [flag for own in parameter.opts for flag in _spellings(own) if flag not in parameter.opts]
            second = parameter.secondary_opts
            hidden.secondary_opts = [flag for own in second for flag in _spellings(own) if flag not in second]
            if hidden.opts or hidden.secondary_opts:
                hidden.add_to_parser(parser, ctx)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        typed = list(args)  # click empties the list
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            flags = [flag for parameter in self.params for flag in (*parameter.opts, *parameter.secondary_opts)]
            known = [flag for flag in flags if flag.startswith("--")]
            hint = about_option(error.option_name, known, verb=str(self.name))
            if not error.option_name.startswith("--"):
                hint = f"A word or a name that begins with -: ' -word', ./-name.jpg. {hint}"
            raise UsageError(
                f"{ctx.command_path} has no option {error.option_name}.", f"{hint} Try '{ctx.command_path} --help'."
            ) from None
        except ClickException as error:
            error.ctx = error.ctx or ctx  # which verb's help to name
            answer = _answer(typed)
            if answer is None:
                raise
            raise UsageError(message_of(error), f"{answer} Try '{ctx.command_path} --help'.") from None


def _answer(args: list[str]) -> str | None:
    """What to do instead of another tool's name with a value that is another thing here: `--eval-strategy epoch`."""
    pairs = [*pairwise(args), *(arg.partition("=")[::2] for arg in args)]
    keys = (f"{plain(name)}={value}" for name, value in pairs if name.startswith("--"))
    return next((ANSWERS[key] for key in keys if key in ANSWERS), None)


def _spellings(name: str) -> list[str]:
    """`--model-id` and `--model_id` of either, nothing for a letter."""
    if name.startswith("-") and not name.startswith("--"):
        return []
    stem = name.removeprefix("--")
    return list(dict.fromkeys(("--" + stem.replace("_", "-"), "--" + stem.replace("-", "_"))))


METAVARS: dict[Any, str] = {bool: "", int: "N", float: "X", str: "TEXT"}
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
APP: dict[str, Any] = {"add_completion": False, "rich_markup_mode": "rich", "context_settings": CONTEXT}

Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="No progress and no advice, only warnings.")]
MODEL_VARIABLE = "CAPTUNE_MODEL"
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar=MODEL_VARIABLE,
        show_envvar=False,
        help="Run, runs/x@last, runs/x@checkpoint-N, folder, export or Hub id. "
        f"(default {DEFAULT_MODEL}, env {MODEL_VARIABLE})",
    ),
]
Matcher = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help=f"BLIP's matching, a CLIP, a SigLIP …; folder or Hub id. Default: {DEFAULT_MATCHER}.",
    ),
]
Data = Annotated[
    str, typer.Option("--data", "-d", metavar="DIR", envvar="DATA_DIR", help="Folder made by captune prepare.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="[NAME=]MODEL",
        envvar=MODEL_VARIABLE,
        show_envvar=False,
        help=(
            f"Run, runs/x@last, runs/x@checkpoint-N, folder, export or Hub id; repeatable. "
            f"(default {DEFAULT_MODEL}, env {MODEL_VARIABLE}, several with spaces)"
        ),
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, scores 0-1.")]


@dataclass(frozen=True)
class Chosen:
    """What the user gave for the options of a verb.

    `flags` holds values by option name, those that were not given left out; `sources` holds
    `config`, `sets` and, where the verb takes one, `preset`, as the Python functions name them.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)

    def call(self, function: Callable[..., T], *values: Any, quiet: bool, **keywords: Any) -> T:
        """What a verb's function returns, with these options and its progress on the terminal."""
        progress = TerminalProgress(quiet=quiet)
        return function(*values, progress=progress, **keywords, **self.sources, **self.flags)

    def resolve(self, verb: str | Verb) -> Resolved:
        """The options of the verb, from these and the environment."""
        sources = {"file" if name == "config" else name: value for name, value in self.sources.items()}
        return resolve(verb, environment=None, flags=self.flags, **sources)


class NestedVerbs(TyperGroup):
    """Verbs below a verb; their help flows as paragraphs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in self.commands.values():
            command.help = _unwrapped(command.help or "")


def verb(function: Callable[..., None], declared: Verb | None = None) -> typer.Typer:
    """A command from a function, whose verb is `declared`, by default that of its name.

    Where the verb has options, the function's parameter `chosen` is filled from a flag for each,
    and from `--config`, `--set` and, where it takes presets, `--preset`.
    """
    declared = declared or VERBS[function.__name__]
    app = typer.Typer(**APP)
    command = with_options(function, declared) if declared.options else function
    help = _unwrapped(function.__doc__ or "")
    app.command(declared.name, cls=VerbCommand, help=help, context_settings=CONTEXT)(command)
    return app


def with_options(function: Callable[..., None], config: str | Verb | type[Options]) -> Callable[..., None]:
    """`function` with a keyword for every option of a verb or configuration in place of its `chosen`."""
    known = leaves(config)
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "chosen"]
    sources = [p for p in _source_parameters() if p.name != "preset" or (isinstance(config, Verb) and config.presets)]

    def command(**values: Any) -> None:
        flags = {name: _listed(values.pop(name)) for name in known}
        origins = {parameter.name: values.pop(parameter.name) for parameter in sources}
        origins["sets"] = tuple(origins["sets"] or ())
        function(**values, chosen=Chosen({n: value for n, value in flags.items() if value is not None}, origins))

    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    options = [_parameter(leaf) for leaf in known.values()]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *sources, *options]]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def kind(annotation: Any) -> tuple[type | Any, bool]:
    """The type of one value, and whether there may be several: `tuple[int, ...]` is `(int, True)`."""
    if get_origin(annotation) is Annotated:
        return kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return kind(next(part for part in get_args(annotation) if part is not NoneType))
    if get_origin(annotation) is tuple:
        return kind(get_args(annotation)[0])[0], True
    return annotation, False


def shown_default(leaf: Leaf) -> str:
    """The default as a reader writes it; empty for none."""
    if leaf.default is None:
        return ""
    if isinstance(leaf.default, bool):
        return "on" if leaf.default else "off"
    if isinstance(leaf.default, tuple):
        return ",".join(str(part) for part in leaf.default)
    return f"{leaf.default:g}" if isinstance(leaf.default, float) else str(leaf.default)


def _parameter(leaf: Leaf) -> inspect.Parameter:
    one, several = kind(leaf.annotation)
    flag = leaf.flag
    notes = []
    if several and get_origin(one) is Literal and not all(word in leaf.help for word in get_args(one)):
        notes.append(", ".join(get_args(one)))
    if shown_default(leaf):
        notes.append(f"default {shown_default(leaf)}")
    if len(leaf.env) > 1:
        notes.append(f"env {leaf.env[1]}")
    text = leaf.help + (f" ({', '.join(notes)})" if notes else "")
    metavar = METAVARS.get(one)
    annotation: Any = typing.Optional[one]  # noqa: UP045 - one may be a Literal built at run time
    if several:  # commas or repetition; the words are checked with all other values in core.config
        annotation = list[str] | None
        metavar = "WORD,..." if get_origin(one) is Literal else "TEXT,..."
    flags = [f"{flag}/--no-{flag.removeprefix('--')}"] if one is bool else [flag]
    help, panel = text.replace("[", r"\["), leaf.panel or leaf.section
    return _keyword(
        leaf.name, annotation, *flags, help=help, show_default=False, rich_help_panel=panel, metavar=metavar
    )


def _source_parameters() -> list[inspect.Parameter]:
    def complete_preset(incomplete: str) -> list[str]:
        return [name for name in presets() if name.startswith(incomplete)]

    def source(name: str, annotation: Any, flag: str, metavar: str, help: str, **settings: Any) -> inspect.Parameter:
        panel = "Where options come from"
        return _keyword(name, annotation, flag, metavar=metavar, help=help, rich_help_panel=panel, **settings)

    recipes = f"A recipe that ships with captune: {', '.join(presets())}."
    full_name = "Any option by its full name; overrides everything else. Repeatable."
    return [
        source("config", str | None, "--config", "FILE", "YAML with sections of options."),
        source("preset", str | None, "--preset", "NAME", recipes, autocompletion=complete_preset),
        source("sets", list[str] | None, "--set", "SECTION.NAME=VALUE", full_name),
    ]


def _keyword(name: str, annotation: Any, *flags: str, **settings: Any) -> inspect.Parameter:
    """A parameter of a command that is an option of the command line, None where it was not given."""
    option = Annotated[annotation, typer.Option(*flags, **settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _unwrapped(text: str) -> str:
    """Paragraphs on one line each: the terminal wraps them at its own width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _listed(value: Any) -> Any:
    """Repeated flags as one tuple; a comma separates as well."""
    if not isinstance(value, list):
        return value
    parts = tuple(part.strip() for text in value for part in text.split(",") if part.strip())
    return parts or None


def print_resolved(verb: str, chosen: Chosen, *, json: bool) -> None:
    """The options of a verb as a run would take them now."""
    resolved = chosen.resolve(verb)
    sections, sources = resolved.values, resolved.sources
    rows = [
        (leaf.key, getattr(getattr(sections, leaf.section), leaf.name), sources.get(leaf.key, "default"))
        for leaf in leaves(verb).values()
    ]
    if json:
        out_json({key: {"value": value, "from": source} for key, value, source in rows})
        return
    out_table("", ("option", "value", "from"), [(key, _shown(value), source) for key, value, source in rows])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
