"""What a reader sees: data on stdout, everything else on stderr, tables of scores, colour only where it is wanted."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer

from captune.core.text import plain_json, printable
from captune.core.wording import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from captune.evaluation.results import Evaluation
    from captune.metrics.report import MetricReport
    from captune.metrics.significance import Difference

# typer brings its own copy of click from some version on; the name is right in either case.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def print_reports(
    reports: Mapping[str, MetricReport],
    comparisons: Mapping[str, Mapping[str, Difference]] | None = None,
    *,
    notes: bool = True,
) -> None:
    """A row for each score: every model's, then what the first has over each of the others.

    In round brackets stands the relative change, in square ones the 95 % interval; p is that of approximate
    randomisation. `notes` are those of the reports.
    """
    comparisons = comparisons or {}
    names = list(reports)
    first = reports[names[0]]
    columns = ["", *names, *(f"{names[0]} - {other}" for other in names[1:])]
    rows = []
    for score in dict.fromkeys(score for report in reports.values() for score in report.scores):
        cells = [_score(score, report) for report in reports.values()]
        for other in names[1:]:
            cells.append(_difference(score, first, reports[other], comparisons.get(other, {})))
        rows.append((score, *cells))
    out_table(
        f"{counted(first.images, 'image')}, {counted(first.references, 'reference')}", columns, rows, numbers=True
    )
    note(SCALE + (" In square brackets: 95 % intervals over pictures." if first.intervals else ""))
    for name, reason in first.settings.get("left_out", {}).items():
        note(f"{name} was left out: {reason}")
    if notes:
        for line in dict.fromkeys(line for report in reports.values() for line in report.notes):
            note(line)


def evaluation_json(result: Evaluation) -> dict[str, Any]:
    """An evaluation for `out_json`: the scores of its models, and how they differ from the first."""
    return {
        "folder": result.folder,
        "models": {name: report.to_json(per_image=False) for name, report in result.reports.items()},
        "differences": result.differences(),
        "relative": result.relative(),
        "comparisons": result.comparisons_json(),
    }


def print_captions(rows: Sequence[Mapping[str, Any]], images: int) -> None:
    """A few images with every model's caption and all references, as `Evaluation.row` gives them."""
    if not rows:
        return
    print_line(f"{len(rows)} of {images} images, drawn by lot\n" if len(rows) < images else "All images\n")
    for row in rows:
        question = f": {row['question']}" if row.get("question") else ""
        print_line(_line(f"{row['id']}{question}"))
        lines = [(name, found["caption"]) for name, found in row["models"].items()]
        lines += [("reference", text) for text in row["references"]]
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            print_line(f"  {name:<{width}}  {_line(text) or '(empty)'}")
        print_line("")


def _line(text: str) -> str:
    """Text on one line, without what would move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split()))


def _score(name: str, report: MetricReport) -> str:
    if name not in report.scores:
        return "-"
    interval = report.intervals.get(name)
    shown = hundred(name, report.scores[name])
    return f"{shown} [{hundred(name, interval.low)}, {hundred(name, interval.high)}]" if interval else shown


def _difference(name: str, first: MetricReport, other: MetricReport, compared: Mapping[str, Difference]) -> str:
    if name not in first.scores or name not in other.scores:
        return "-"
    found = compared.get(name)
    shown = _signed(name, first.scores[name] - other.scores[name])
    from captune.metrics.report import relative_change

    share = relative_change(name, first.scores[name], other.scores[name])
    if share is not None:
        shown += f" ({100 * share:+.1f} %)"
    if found is None:
        return shown
    p = "p<0.001" if found.p_randomisation < 0.001 else f"p={found.p_randomisation:.3f}"
    return f"{shown} [{_signed(name, found.low)}, {_signed(name, found.high)}] {p}"


def _signed(name: str, value: float) -> str:
    shown = hundred(name, value)
    return shown if shown.startswith("-") else f"+{shown}"


SCALE = "Scores x 100; loss and perplexity as they are."


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


def message_of(error: Any) -> str:
    """An error of click in words, without those of the library that checked the value."""
    return str(error.format_message()).replace("Value error, ", "")
