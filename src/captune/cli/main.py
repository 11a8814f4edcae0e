"""The entry point: finds the verb, turns errors into messages and exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from captune.cli.flags import ClickException, message_of
from captune.cli.terminal import print_all_names
from captune.core.environment import heed_hub_token
from captune.core.errors import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    CaptuneError,
    UsageError,
    about_variables,
    about_verb,
    first_line,
    needing_torch,
)
from captune.core.machine import machine_error


@dataclass(frozen=True)
class Verb:
    """A command before it is loaded: its line in `captune --help`, and what a stop leaves behind."""

    help: str
    panel: str
    when_stopped: str = "Nothing was changed."


START, WORK, LOOK = "Start here", "The main job", "Look back"

VERBS = {
    "demo": Verb(
        "The whole way on built-in scenes: no network, no downloads, about three minutes.",
        START,
        "What is finished stays in the demo's folder; the same command goes on with it.",
    ),
    "doctor": Verb("Check Python, packages, devices, disk, a model and the logins.", START),
    "prepare": Verb(
        "Turn a dataset into verified splits.", WORK, "No split was written; run the same command to start over."
    ),
    "train": Verb(
        "Fine-tune a model, or train one from scratch.",
        WORK,
        "Whole checkpoints are kept; the same command with --resume goes on from the last.",
    ),
    "tune": Verb(
        "Search for good training options.", WORK, "Finished trials are kept; the same command goes on with the search."
    ),
    "evaluate": Verb(
        "Caption a split and measure it; several models side by side.",
        WORK,
        "Reports that were finished are kept; run the same command to measure again.",
    ),
    "score": Verb("Measure captions that were made elsewhere against references.", WORK),
    "caption": Verb(
        "Caption pictures, folders of pictures, or a list on stdin.",
        WORK,
        "Captions printed so far stand; a job in a folder or a file goes on with the same command.",
    ),
    "video": Verb("Caption the scenes of films: times, JSON, subtitles.", WORK, "Captions printed so far stand."),
    "webcam": Verb("Caption what a camera sees, every few seconds.", WORK, "Captions printed so far stand."),
    "inspect": Verb("How one caption comes about: pixels, tokens, probabilities, time.", WORK),
    "review": Verb("The most doubtful captions first, from files of captune caption.", WORK),
    "match": Verb("How well texts fit pictures; the best pictures of a text, the best texts of a picture.", WORK),
    "ask": Verb("Ask a question about pictures.", WORK),
    "embed": Verb("Vectors of pictures, in the space that texts share.", WORK),
    "capfilt": Verb("Clean noisy pairs: a captioner writes, a matcher filters.", WORK, "Nothing was kept."),
    "serve": Verb(
        "Caption pictures over HTTP: REST, and OpenAI's chat completions.", WORK, "Nothing was being served."
    ),
    "app": Verb("A page in the browser that captions pictures.", WORK, "The page is closed."),
    "export": Verb("Write a model as ONNX or OpenVINO files that caption without torch.", WORK, "Nothing was written."),
    "convert": Verb("Make a model folder of weights alone (weights.pt).", WORK, "Nothing was written."),
    "push": Verb("Put a model on the Hugging Face Hub with a filled card.", WORK, "Nothing was published."),
    "report": Verb("Page, Markdown and figures of an evaluation.", LOOK),
    "compare": Verb("Evaluated runs side by side, with paired tests.", LOOK),
    "runs": Verb("List, show and compare training runs.", LOOK),
    "models": Verb("Model families that captune knows.", LOOK),
}


class Verbs(TyperGroup):
    """The group of all verbs; a verb's module is imported when it is called, not for the list."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=verb.help, rich_help_panel=verb.panel) for name, verb in VERBS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in VERBS:
            for warning in about_variables(os.environ):
                _note(f"warning: {warning}")
            self.commands[args[0]] = load(args[0])
        elif args and not args[0].startswith("-"):
            raise UsageError(f"No such command '{args[0]}'.", f"{about_verb(args[0], VERBS)} Try 'captune --help'.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Here rather than in `run`: typer turns the exception into a bare exit code.
            _stopped(ctx.invoked_subcommand, "Stopped")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Terminated:
            _stopped(ctx.invoked_subcommand, "Terminated")
            raise


class Terminated(SystemExit):
    """SIGTERM, as an exception, so that `finally` blocks run."""


def load(name: str) -> Any:
    """The command of a verb, ready to be called."""
    command = typer.main.get_command(importlib.import_module(f"captune.cli.verbs.{name}").app)
    command.name = name
    return command


def application() -> Any:
    """The whole command line as one command."""
    app = typer.Typer(
        cls=Verbs, name="captune", rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
    )
    app.callback(invoke_without_command=True)(_captune)
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    try:
        with needing_torch():
            code = application().main(list(arguments), prog_name="captune", standalone_mode=False)
        sys.stdout.flush()
    except CaptuneError as error:
        stopped = error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
        _note(str(error)) if stopped else _show(error)
        return error.code
    except ClickException as error:
        ctx = getattr(error, "ctx", None)
        _error(message_of(error), f"Try '{ctx.command_path} --help'." if ctx else "")
        return int(error.exit_code)
    except typer.Abort:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`captune ... | head`); nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except Exception as error:
        known = machine_error(error)
        if known is None:
            raise
        _show(known)
        return known.code
    return code if isinstance(code, int) else EXIT_OK


def main() -> NoReturn:
    """`captune` on the command line."""
    signal.signal(signal.SIGTERM, _terminate)
    heed_hub_token(os.environ)
    print_all_names()
    sys.excepthook = _unexpected
    threading.excepthook = _unexpected_in_thread
    sys.exit(run(sys.argv[1:]))


def _captune(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print captune's version.", is_eager=True)
    ] = False,
) -> None:
    """Fine-tune, evaluate and serve image-captioning models."""
    if version:
        from captune import __version__

        typer.echo(f"captune {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(EXIT_TERMINATED)


def _stopped(verb: str | None, how: str) -> None:
    _note(f"{how}. {VERBS[verb].when_stopped if verb in VERBS else ''}".rstrip())


def _note(text: str) -> None:
    from captune.cli.terminal import note

    note(text)


def _show(error: CaptuneError) -> None:
    if os.environ.get("CAPTUNE_TRACEBACK"):
        sys.__excepthook__(type(error), error, error.__traceback__)
    _error(error.message, error.hint)


def _error(message: str, hint: str) -> None:
    from captune.cli.terminal import show_error

    show_error(message, hint)


def _unexpected_in_thread(what: threading.ExceptHookArgs) -> None:
    """A library's thread that fails (a tracker's on a full disk): who waits for it has the error to report."""
    if os.environ.get("CAPTUNE_TRACEBACK"):
        threading.__excepthook__(what)
    elif what.exc_type is not SystemExit:
        _note(f"A background thread failed: {what.exc_type.__name__}: {what.exc_value}")


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get("CAPTUNE_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
        return
    _error(
        f"Something unexpected went wrong: {first_line(error, with_type=True)}",
        "Set CAPTUNE_TRACEBACK=1 and run the command again to see where; it may be a bug worth reporting.",
    )
