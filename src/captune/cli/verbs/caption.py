from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Model, Quiet, verb
from captune.cli.path_lists import read_paths
from captune.cli.progress import TerminalProgress, duration, rate
from captune.cli.terminal import live_stdout, note, out_json, print_line
from captune.core.config import Resolved
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED, UsageError
from captune.core.files.paths import Listed
from captune.core.options import CaptionOptions, JobOptions
from captune.core.wording import counted

if TYPE_CHECKING:
    from captune.captions.row import CaptionRow
    from captune.jobs.job import JobReport


def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, folders, globs, tar shards, Parquet, hf:NAME, s3://..., or - for a list on stdin.",
        ),
    ],
    chosen: Chosen,
    model: Model = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="PATH", help="File or folder for the captions, not stdout.")
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="DIR", help="Folder for the attention map of each word (PNG, JSON)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", metavar="", help="Print the result of a job as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Caption images.

    An image that cannot be read does not stop the others: its reason is shown, and the exit code is 3 (1 if none
    could be captioned). Many images into a folder or a file are a job: after a stop, the same command continues it.
    """
    from captune.api.caption import caption as caption_images
    from captune.jobs.request import is_job, with_format

    progress = TerminalProgress(quiet=quiet)
    resolved = with_format(chosen.resolve("caption"), out)
    options = resolved.values.caption
    if out is not None and explain is None and is_job(options.format, out) and not _into_one_file(inputs, out):
        _job(inputs, out, model, resolved, progress, json=json)
        return
    _refuse_job_options(chosen, json=json)
    rows = caption_images(list(_named(inputs)), model=model, explain=explain, progress=progress, config=resolved)
    _write(rows, out, options, progress, bare=_is_one_image(inputs), schema=resolved.values.structure.schema)


def _write(
    rows: Iterable[CaptionRow],
    out: str | None,
    options: CaptionOptions,
    progress: TerminalProgress,
    *,
    bare: bool,
    schema: str | None = None,
) -> None:
    """Write rows as they come, and name those that failed; `bare`: captions without a name before them, on stdout."""
    from captune.api.caption import notes_provenance
    from captune.captions.structure import Structure
    from captune.captions.writers import open_writer

    good = bad = 0
    bare = bare and options.format == "text" and out in (None, "-")
    with open_writer(
        options.format,
        out,
        live_stdout(),
        in_place=options.in_place,
        existing=options.existing,
        provenance=notes_provenance(options),
        sidecar_suffix=options.sidecar_suffix,
        fields=None if schema is None else Structure.read(schema).columns,
    ) as writer:
        for row in rows:
            if bare:
                for each in row.captions:
                    print_line(each.text)
            else:
                writer.write(row)
            reason = getattr(writer, "unwritten", {}).get(row.image, row.error)
            if row.status == "ok" and reason is None:
                good += 1
            else:
                bad += 1
                progress.warn(f"{row.image}: {reason}")
    for remark in getattr(writer, "notes", ()):
        progress.info(remark)
    if bad:
        progress.warn(f"{bad:,} of {counted(good + bad, 'image')} could not be captioned.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if good else EXIT_FAILURE)


def _refuse_job_options(chosen: Chosen, *, json: bool) -> None:
    flags = [f"--{name.replace('_', '-')}" for name in JobOptions.model_fields if name in chosen.flags]
    if json or flags:
        raise UsageError(
            f"{'--json' if json else flags[0]} is for jobs: many images into a folder or a file, without --explain.",
            "For example: captune caption photos/ --format jsonl --out captions/; captions as JSON: --format json",
        )


def _job(
    inputs: list[str], out: str, model: str | None, resolved: Resolved, progress: TerminalProgress, *, json: bool
) -> None:
    from captune.jobs.job import caption_job

    report = caption_job(list(_named(inputs)), out, model=model, progress=progress, config=resolved)
    if json:
        out_json(report.to_json())
    elif resolved.values.job.dry_run:
        print_line(_counted(report))
    elif not progress.quiet:
        note(_summary(report))
    if report.failed and report.captioned:
        if report.failures:
            progress.warn(f"Those that failed are in {report.failures}; take them again with --retry-failed.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if report.failed < report.done else EXIT_FAILURE)
    if report.unwritten:
        files = counted(report.unwritten, "file")
        progress.warn(f"Not written: {files}; the same command tries again.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED)


def _counted(report: JobReport) -> str:
    images = "an unknown number of images" if report.pictures is None else counted(report.pictures, "image")
    done = f"{report.done:,} in {counted(report.shards_done, 'shard')} done"
    return f"{images} in {counted(report.shards, 'shard')}; {done}"


def _summary(report: JobReport) -> str:
    pace = f", {duration(report.seconds)}, {rate(report.rate)}" if report.captioned else ""
    text = f"{counted(report.done, 'image')}, {report.failed:,} failed{pace}. Written: {report.out}"
    if report.shards_done < report.shards:
        text += f" ({report.shards_done:,} of {counted(report.shards, 'shard')})"
    elif not report.whole:
        text += " (this part is done, others are not)"
    if report.duplicates:
        text += f"; {report.duplicates:,} look like another"
    return text


def _into_one_file(inputs: list[str], out: str) -> bool:
    from captune.jobs.manifest import is_image

    return len(inputs) == 1 and is_image(inputs[0]) and bool(os.path.splitext(out)[1]) and not os.path.isdir(out)


def _is_one_image(inputs: list[str]) -> bool:
    """Whether one image was named: then its caption needs no name before it."""
    from captune.datasets.sources.listing import is_image_file

    return len(inputs) == 1 and is_image_file(inputs[0])


def _named(inputs: list[str]) -> Iterator[str]:
    """The inputs, with `-` replaced by the paths on stdin, each a name and never a pattern."""
    for name in inputs:
        if name != "-":
            yield name
            continue
        if sys.stdin.isatty():
            raise UsageError(
                "'-' reads paths from stdin, but nothing is piped in.", "For example: ls *.jpg | captune caption -"
            )
        yield from map(Listed, read_paths(sys.stdin.buffer, sys.stdin.encoding))


app = verb(caption)
