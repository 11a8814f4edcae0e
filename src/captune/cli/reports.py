"""Scores of models side by side, as people read them: x 100, with intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from captune.cli.terminal import SCALE, hundred, note, out_table, print_line
from captune.metrics.report import MetricReport, relative_change
from captune.metrics.significance import Difference


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
    out_table(f"{first.images} images, {first.references} references", columns, rows, numbers=True)
    note(SCALE + (" In square brackets: 95 % intervals over pictures." if first.intervals else ""))
    for name, reason in first.settings.get("left_out", {}).items():
        note(f"{name} was left out: {reason}")
    if notes:
        for line in dict.fromkeys(line for report in reports.values() for line in report.notes):
            note(line)


def print_captions(rows: Sequence[Mapping[str, Any]], images: int) -> None:
    """A few images with every model's caption and all references, as `Evaluation.row` gives them."""
    if not rows:
        return
    print_line(f"{len(rows)} of {images} images, drawn by lot\n" if len(rows) < images else "All pictures\n")
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
