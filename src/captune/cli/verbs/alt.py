from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Json, Model, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import next_commands, note, out_json, out_table
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED, UsageError
from captune.core.wording import counted

if TYPE_CHECKING:
    from captune.api.alt import AltReport

_PATCH = "captune-alt.patch"


def alt(
    site: Annotated[str, typer.Argument(metavar="SITE", help="Folder of HTML and Markdown, or one page.")],
    chosen: Chosen,
    model: Model = None,
    patch: Annotated[
        str | None, typer.Option("--patch", metavar="FILE", help=f"File for the patch. (default {_PATCH})")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", metavar="", help="Change the pages themselves; no patch unless it is named.")
    ] = False,
    apply: Annotated[
        str | None, typer.Option("--apply", metavar="FILE", help="Make the changes of a patch, edited or not.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", metavar="", help="Only list, without a model; exit code 1 where images have no text."),
    ] = False,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page for review, with thumbnails.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find images without alternative text in HTML and Markdown, and write texts for them.

    The texts are a patch, for you to read and to apply with git apply. Decorative images (an empty alt in HTML) and
    existing texts stay as they are. Captions with flags or a low confidence are listed, and not in the patch.
    """
    from captune.api.alt import alt as alternative_texts

    progress = TerminalProgress(quiet=quiet)
    if sum((write, apply is not None, check)) > 1:
        raise UsageError("--write, --apply and --check are three things to do.", "Choose one of them.")
    target = patch or (None if write or check or apply else _PATCH)
    report = alternative_texts(
        site, model=model, patch=target, write=write, check=check, apply=apply, html=html, progress=progress,
        config=chosen.resolve("alt"),
    )  # fmt: skip
    for page, why in report.unread.items():
        progress.warn(f"{page} was not read: {why}.")
    for page, why in report.unwritten.items():
        progress.warn(f"{page} was not written: {why}.")
    if json:
        out_json(report.to_json())
    elif apply is None:
        _print_rows(report)
    if not quiet and not json:
        _print_summary(report, site, target if report.patch else None, applied=apply is not None, check=check)
    if check and report.remaining:
        raise typer.Exit(EXIT_FAILURE)
    failed = [row for row in report.rows if row.file and row.reason and row.text is None and not _is_known(row.reason)]
    if not check and (report.unwritten or failed):
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED)


def _is_known(reason: str) -> bool:
    from captune.pages.find import REASONS

    return reason in REASONS


def _print_rows(report: AltReport) -> None:
    rows = [
        (
            f"{row.page}:{row.line}",
            row.image,
            row.state if not row.reason else f"{row.state}, {row.reason}",
            row.text if row.text is not None else f"({row.alt})" if row.alt else "",
            "; ".join(f"{flag}: {why}" for flag, why in row.flags.items()),
        )
        for row in report.rows
    ]
    if rows:
        out_table("", ("place", "image", "state", "text", "flags"), rows)


def _print_summary(report: AltReport, site: str, patch: str | None, *, applied: bool, check: bool) -> None:
    if applied:
        note(f"{counted(len(report.changed), 'page')} changed, {len(report.unwritten):,} left alone.")
        return
    counts = ", ".join(f"{count:,} {state}" for state, count in report.images.items()) or "no images"
    note(f"{counted(report.pages, 'page')}: {counts}.")
    proposed = sum(row.proposed for row in report.rows)
    review = sum(row.text is not None and not row.proposed for row in report.rows)
    if report.changed:
        note(f"{counted(proposed, 'text')} written into {counted(len(report.changed), 'page')}.")
    elif patch:
        note(f"{counted(proposed, 'text')} in {patch}.")
    if review:
        note(f"{counted(review, 'caption')} for review, not written (--write-flagged writes them too).")
    if not check and report.remaining:
        note(f"Still without a text: {counted(report.remaining, 'image')}.")
    if patch and not report.changed:
        here = os.path.samefile(report.base, os.curdir)
        git = ("git", "apply", patch) if here else ("git", "-C", report.base, "apply", os.path.abspath(patch))
        next_commands(git, ("captune", "alt", site, "--apply", patch))


app = verb(alt)
