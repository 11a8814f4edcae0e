"""A verb's command: it also takes other tools' names of its options, and says what an unknown one may mean."""

from __future__ import annotations

import copy
import sys
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand

from captune.core.aliases import ANSWERS, names_of, plain
from captune.core.errors import UsageError
from captune.core.suggestions import about_option

# typer brings its own copy of click from some version on; these names are right in either case.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
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
            hidden.secondary_opts = [
                flag
                for own in parameter.secondary_opts
                for flag in _spellings(own)
                if flag not in parameter.secondary_opts
            ]
            if hidden.opts or hidden.secondary_opts:
                hidden.add_to_parser(parser, ctx)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)  # click empties the list
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            flags = [flag for parameter in self.params for flag in (*parameter.opts, *parameter.secondary_opts)]
            known = [flag for flag in flags if flag.startswith("--")]
            hint = about_option(error.option_name, known, verb=str(self.name))
            raise UsageError(
                f"{ctx.command_path} has no option {error.option_name}.", f"{hint} Try '{ctx.command_path} --help'."
            ) from None
        except ClickException as error:
            error.ctx = error.ctx or ctx  # which verb's help to name
            answer = _answer(given)
            if answer is None:
                raise
            raise UsageError(message_of(error), f"{answer} Try '{ctx.command_path} --help'.") from None


def message_of(error: Any) -> str:
    """An error of click in words, without those of the library that checked the value."""
    return str(error.format_message()).replace("Value error, ", "")


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
