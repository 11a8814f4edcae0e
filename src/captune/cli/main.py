"""The entry point: finds the verb, turns errors into messages and exit codes."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from captune.cli.terminal import ClickException, message_of, note, print_all_names, show_error
from captune.core.environment import heed_hub_token, report_nothing
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
from captune.core.verbs import VERBS


class VerbGroup(TyperGroup):
    """The group of all verbs; a verb's module is imported when it is called, not for the list."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: TyperCommand(name, help=verb.help, rich_help_panel=verb.panel) for name, verb in VERBS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in VERBS:
            for warning in about_variables(os.environ):
                note(f"warning: {warning}")
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
    command = typer.main.get_command(VERBS[name].load_command())
    command.name = name
    return command


def application() -> Any:
    """The whole command line as one command."""
    app = typer.Typer(
        cls=VerbGroup, name="captune", rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
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
        note(str(error)) if stopped else _show(error)
        return error.code
    except ClickException as error:
        ctx = getattr(error, "ctx", None)
        if not message_of(error):  # a group without a verb behind it: its help is printed
            return int(error.exit_code)
        show_error(message_of(error), f"Try '{ctx.command_path} --help'." if ctx else "")
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
    report_nothing(os.environ)
    print_all_names()
    sys.excepthook = _unexpected
    threading.excepthook = _unexpected_in_thread
    code = run(sys.argv[1:])
    gc.freeze()  # else all that was imported is looked through once more: most of a second
    sys.exit(code)


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
    note(f"{how}. {VERBS[verb].when_stopped if verb and verb in VERBS else ''}".rstrip())


def _show(error: CaptuneError) -> None:
    if os.environ.get("CAPTUNE_TRACEBACK"):
        sys.__excepthook__(type(error), error, error.__traceback__)
    show_error(error.message, error.hint)


def _unexpected_in_thread(what: threading.ExceptHookArgs) -> None:
    """A library's thread that fails (a tracker's on a full disk): who waits for it has the error to report."""
    if os.environ.get("CAPTUNE_TRACEBACK"):
        threading.__excepthook__(what)
    elif what.exc_type is not SystemExit:
        note(f"A background thread failed: {what.exc_type.__name__}: {what.exc_value}")


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get("CAPTUNE_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
        return
    show_error(
        f"Something unexpected went wrong: {first_line(error, with_type=True)}",
        "Set CAPTUNE_TRACEBACK=1 and run the command again to see where; it may be a bug worth reporting.",
    )
