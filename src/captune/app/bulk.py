"""A job: many pictures into a folder or a file, in shards, so that a stop at any moment loses nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captune.app.bulk_end import Counted, Ending, count, finish, remove, rows_of, write_failures
from captune.app.bulk_ray import work_on_ray
from captune.app.bulk_start import Asked, Job, begun, check_same, load, part_of
from captune.app.captioner import Captioner
from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import DEFAULT_MODEL, CaptionConfig
from captune.core.progress import SILENT, Progress, Task
from captune.core.records import Caption
from captune.data.bulk.manifest import FAILURES, MANIFEST, REPORT, Listing, Manifest
from captune.data.bulk.pieces import find_pieces
from captune.data.bulk.shards import PLAIN, SHARD_FORMATS
from captune.data.bulk.store import open_store
from captune.data.workers import cores
from captune.data.writers import WRITERS
from captune.data.writers.row import CaptionRow
from captune.data.writers.writer import is_folder

if TYPE_CHECKING:
    from captune.engine.bulk import Finished, Manner
    from captune.engine.decoding_ahead import Shard

_PICTURES_PER_PROCESS = 16
_WARNINGS = 20
SIDECAR = "sidecar"


@dataclass(frozen=True)
class JobReport:
    """What became of a job, or of a part of it.

    `out` is where the captions are, `pictures` how many the part has (None where only reading tells), `done` those in
    whole shards, `failed` those of them without a caption, which `failures` lists; `captioned` and `seconds` are of
    this run. `shards` of the part are in their place to the number of `shards_done`; `whole`: all parts are.
    `duplicates` pairs look alike (None: not looked for), `new` files have come to the inputs since the job began.
    """

    out: str
    pictures: int | None
    done: int
    failed: int
    captioned: int
    seconds: float
    shards: int
    shards_done: int
    whole: bool
    failures: str | None = None
    duplicates: int | None = None
    new: int = 0

    @property
    def rate(self) -> float:
        """Pictures a second of this run."""
        return self.captioned / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


def is_job(format: str, out: str | os.PathLike[str] | None) -> bool:
    """Whether several pictures in this format to this place are a job: a folder of shards, or an ordinary file."""
    if out is None or os.fspath(out) == "-":
        return False
    path = Path(out)
    if _folder(out):
        return format in SHARD_FORMATS or format == SIDECAR
    return format != SIDECAR and (path.is_file() or not path.exists())


def caption_job(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> JobReport:
    """Caption pictures into the folder `out` in shards, or into a file; the same call goes on after any stop.

    Formats of a folder are jsonl (the default), csv, parquet, and sidecar, which has jsonl shards beside; a file takes
    every format, and its job is kept in `out.job` until it is written. A picture that cannot be captioned is a row
    with its reason. Raises `CaptuneError` where the folder holds another job, or nothing can be written; what was
    finished stays. Options are those of `captune caption --help`.
    """
    started = time.monotonic()
    environment = os.environ if environment is None else environment
    resolved = resolve(CaptionConfig, file=config, environment=environment, flags=options, sets=sets)
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    asked, ending = _asked(tuple(os.fspath(item) for item in given), os.fspath(out), model or DEFAULT_MODEL, resolved)
    if resolved.values.job.dry_run:
        return _dry(asked, os.fspath(out), progress)
    with begun(asked, progress) as job:
        report = _run(job, ending, os.fspath(out), started, progress)
        if asked.temporary:
            remove(job)
    return report


def _asked(
    given: tuple[str, ...], out: str, model: str, resolved: Resolved[CaptionConfig]
) -> tuple[Asked, Ending | None]:
    values = resolved.values
    folder, format = _folder(out), values.caption.format
    if folder and "caption.format" not in resolved.sources:
        format = PLAIN.suffix
        caption = values.caption.model_copy(update={"format": format})
        resolved = Resolved(values.model_copy(update={"caption": caption}), resolved.sources)
    if not is_job(format, out):
        raise UsageError(
            f"{format} into {out} cannot be a job.", "Folders take jsonl, csv, parquet and sidecar, files the others."
        )
    WRITERS[format]  # an unknown one is told now, not at the end
    part = part_of(values.job.part)
    if not folder and (part != (1, 1) or values.job.retry_failed):
        raise UsageError("--part and --retry-failed are for jobs in a folder.", "For example: --format jsonl --out DIR")
    shards = SHARD_FORMATS.get(format, PLAIN) if folder else PLAIN
    store = open_store(out if folder else f"{out}.job")
    asked = Asked(given, model, resolved, store, shards, part, temporary=not folder)
    return asked, None if folder and format != SIDECAR else Ending(format, Path(out))


def _run(job: Job, ending: Ending | None, out: str, started: float, progress: Progress) -> JobReport:
    store, mine = job.asked.store, set(job.numbers)
    done = job.done()
    todo = sorted(mine - done)
    again: set[int] = set()
    if job.asked.resolved.values.job.retry_failed:
        again = {number for number, counted in count(job, mine & done).items() if counted.failed}
    new = _newer(job, progress) if todo else 0
    captioned = 0
    if todo or again:
        store.delete(REPORT)
        captioned = _caption(job, sorted({*todo, *again}), again, progress)
    elif REPORT in store.names() and not job.asked.temporary:
        progress.say(f"The job in {out} is finished.")
        duplicates = json.loads(store.read(REPORT))["duplicates"]
        return _report(job, out, count(job, done), started, duplicates=duplicates, new=_newer(job, progress))
    counted, duplicates = finish(job, ending, progress)
    return _report(job, out, counted, started, captioned, duplicates, new)


def _caption(job: Job, todo: list[int], again: set[int], progress: Progress) -> int:
    """Caption shards; returns how many pictures. What was whole when it is stopped stays, and is said."""
    if job.asked.resolved.values.job.engine == "ray":
        job.captioner = None  # the workers load the model: this process makes room for theirs
    else:
        job.captioner = job.captioner or load(job.asked, progress)
    try:
        return _work(job, todo, again, progress)
    except (KeyboardInterrupt, SystemExit, CaptuneError):
        done = job.done() & set(job.numbers)
        progress.say(f"{len(done):,} of {len(job.numbers):,} shards are whole; the same command goes on with the rest.")
        with suppress(CaptuneError):  # the disk may be full: the error that stopped the job is the one to tell
            write_failures(job, progress)
        raise


def _work(job: Job, todo: list[int], again: set[int], progress: Progress) -> int:
    from captune.engine.bulk import Manner

    values = job.asked.resolved.values
    pictures = job.listing.pictures(todo)
    manner = Manner(
        job.asked.shards,
        pieces=len(job.listing),
        batch_size=values.caption.batch_size,
        workers=values.caption.workers,
        max_pixels=values.caption.max_pixels,
        language=values.translation.language,
        fingerprints=not job.asked.temporary,
    )
    whole = job.listing.pictures(job.numbers)
    before = 0 if whole is None or pictures is None else whole - pictures
    captioned = warned = 0
    with progress.task("Captioning", whole, before) as task:
        engine = work_on_ray if values.job.engine == "ray" else _work_here
        work = engine(job, todo, partial(_shard, job, again), manner, progress, task)
        with closing(work):
            for finished in work:
                captioned += finished.pictures
                for row in finished.failed[: max(0, _WARNINGS - warned)]:
                    progress.warn(f"{row.image}: {row.error}")
                warned += len(finished.failed)
    if warned > _WARNINGS:
        progress.warn(f"{warned - _WARNINGS:,} more could not be captioned.")
    return captioned


def _work_here(
    job: Job, todo: list[int], shard: partial[Shard], manner: Manner, progress: Progress, task: Task
) -> Generator[Finished]:
    from captune.engine.bulk import caption_pieces

    assert job.captioner is not None
    pictures = job.listing.pictures(todo)
    few = cores() if pictures is None else max(1, pictures // _PICTURES_PER_PROCESS)
    return caption_pieces(
        speaker(job.captioner),
        job.captioner.backbone.pixels,
        map(shard, todo),
        job.asked.store,
        replace(manner, workers=min(manner.workers or cores(), few)),
        advance=task.advance,
        check_missing=job.asked.inputs.check_there,
    )


def _shard(job: Job, again: set[int], number: int) -> Shard:
    from captune.engine.decoding_ahead import Shard

    return Shard(number, job.listing[number], _earlier(job, number) if number in again else ())


def _earlier(job: Job, number: int) -> tuple[CaptionRow, ...]:
    """The rows of a shard that its failed pictures can be captioned into again; none: the whole is done anew."""
    rows = tuple(rows_of(job, number))
    piece = job.listing[number]
    # What could not be read on is a row that stands for several pictures.
    lost = any(row.status == "error" and row.image == piece.place for row in rows)
    return () if lost or piece.count not in (None, len(rows)) else rows


def speaker(captioner: Captioner) -> Callable[[np.ndarray], list[list[Caption]]]:
    """Captions of pixels as the options ask, translated where they ask for that."""
    values = captioner.options
    translator = captioner.translator(values)

    def say(seen: np.ndarray) -> list[list[Caption]]:
        found = captioner.say(seen, values.generation)
        if translator is None:
            return found
        from captune.engine.translation import translated

        stream = translated(((None, each) for each in found), translator, len(found))
        return [said for _, said in stream if not isinstance(said, CaptuneError)]

    return say


def _newer(job: Job, progress: Progress) -> int:
    """How many files and archives have come to the inputs since the job began; they are not in it."""
    asked = job.asked
    if asked.part[0] > 1:
        return 0  # the first part looks for all
    unfinished = not set(job.numbers) <= job.done()
    try:
        asked.inputs.check_there()
    except CaptuneError:
        if unfinished:
            raise
        return 0
    with progress.task("Looking for new pictures"):
        found = find_pieces(asked.given, recursive=asked.resolved.values.caption.recursive, shard_size=asked.shard_size)
        new, both = job.listing.newer(found)
    if not both and not asked.inputs.named:
        raise CaptuneError(
            f"{asked.store.place} holds another job: none of these pictures is in it.", "Take another --out for them."
        )
    if new:
        progress.warn(
            f"{new:,} have come to the inputs since the job began and are not in it: they need another --out."
        )
    return new


def _report(
    job: Job,
    out: str,
    counted: Mapping[int, Counted],
    started: float,
    captioned: int = 0,
    duplicates: int | None = None,
    new: int = 0,
) -> JobReport:
    mine = [counted[number] for number in job.numbers if number in counted]
    failed = sum(len(each.failed) for each in mine)
    return JobReport(
        out=out,
        pictures=job.listing.pictures(job.numbers),
        done=sum(each.rows for each in mine),
        failed=failed,
        captioned=captioned,
        seconds=time.monotonic() - started,
        shards=len(job.numbers),
        shards_done=len(mine),
        whole=len(counted) == len(job.listing),
        failures=f"{job.asked.store.place}/{FAILURES}" if failed and not job.asked.temporary else None,
        duplicates=duplicates,
        new=new,
    )


def _dry(asked: Asked, out: str, progress: Progress) -> JobReport:
    """What there is to do; nothing is loaded or written."""
    started = time.monotonic()
    if MANIFEST in asked.store.names() and not asked.resolved.values.job.restart:
        manifest = Manifest.read(asked.store)
        job = Job(asked, Listing.read(asked.store, manifest.pieces), manifest)
        check_same(job, progress)
        new = _newer(job, progress)
    else:
        asked.inputs.check_there("Check the path.")
        with progress.task("Listing the pictures"):
            recursive = asked.resolved.values.caption.recursive
            listing = Listing.of(find_pieces(asked.given, recursive=recursive, shard_size=asked.shard_size))
        job, new = Job(asked, listing), 0
    done = job.done() if job.manifest else set()
    return _report(job, out, count(job, done), started, new=new)


def _folder(out: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(out) or is_folder(Path(out))
