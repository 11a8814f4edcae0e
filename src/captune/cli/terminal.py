"""What a reader sees: data on stdout, everything else on stderr, colour only where it is wanted."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

from captune.core.text import plain_json, printable

SCALE = "Scores x 100; loss and perplexity as they are."

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console(*, stderr: bool = False) -> Console:
    """The terminal of one stream; rich leaves colours out for NO_COLOR, TERM=dumb and pipes."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def show_error(message: str, hint: str = "") -> None:
    """What is wrong and what to do next, on stderr."""
    from rich.text import Text

    screen = console(stderr=True)
    screen.print(Text.assemble(("error: ", "bold red"), printable(message)))
    if hint:
        screen.print(Text(printable(hint)))


def note(text: str) -> None:
    """A line that is no data, on stderr."""
    from rich.text import Text

    console(stderr=True).print(Text(printable(text)))


def print_all_names() -> None:
    """Have file names that are not UTF-8 printed as escapes, which JSON reads back, where they would be an error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def print_line(text: str) -> None:
    """A line of data on stdout."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")


def out_json(value: Any) -> None:
    """A value as JSON on stdout, scores as they are (0-1)."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str)
    sys.stdout.write(plain_json(text) + "\n")


def out_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: bool = False) -> None:
    """A table on stdout; with `numbers` all columns but the first stand to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table: Table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if numbers and place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))  # no markup, no :codes: of images
    screen = console()
    screen.soft_wrap = False
    if not screen.is_terminal:
        screen.width = 10_000  # a pipe has no width of its own: nothing is folded there
    if title:
        print_line(f"{title}\n")
    with screen.capture() as captured:
        screen.print(table)
    print_line("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


class _LiveStdout(io.TextIOBase):
    """sys.stdout as it is at each write: a running bar replaces it, so that lines land above the bar."""

    encoding = property(lambda self: sys.stdout.encoding or "utf-8")

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def live_stdout() -> TextIO:
    """A stream for data that is written while a bar may be running."""
    return cast(TextIO, _LiveStdout()) if sys.stdout.isatty() else sys.stdout


def next_commands(*commands: Sequence[str]) -> None:
    """Commands to type next, on stderr, ready to be copied."""
    note("\nNext:\n" + "\n".join(f"  {shlex.join(command)}" for command in commands))


def hundred(name: str, score: float) -> str:
    """A score as papers print it: x 100, but loss and perplexity as they are."""
    from captune.metrics import spec_of

    return spec_of(name).text(score)
