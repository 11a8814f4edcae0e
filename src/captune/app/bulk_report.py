"""The result of a job, in numbers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from captune.app.bulk_end import JobResult
from captune.app.bulk_start import Job
from captune.data.bulk.names import FAILURES


@dataclass(frozen=True)
class JobReport:
    """The result of a job, or of a part of it.

    `out` is where the captions are, `pictures` how many images the part has (None where only reading tells), `done`
    those in written shards, `failed` those of them without a caption, which the file `failures` lists; `captioned` and
    `seconds` are of this run. `shards_done` of the part's `shards` are written; `whole`: those of all parts are.
    `duplicates` pairs of images are near-duplicates (None: not compared), `new` files have come to the inputs since
    the job began, `preserved` captions that captune did not write stayed as they were (`existing`); the files of
    `unwritten` images could not be written.
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
    preserved: int = 0
    unwritten: int = 0

    @property
    def rate(self) -> float:
        """Images a second of this run."""
        return self.captioned / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


def make_report(job: Job, result: JobResult, started: float, captioned: int = 0, new: int = 0) -> JobReport:
    counts = [result.counts[number] for number in job.numbers if number in result.counts]
    failed = sum(len(count.failed) for count in counts)
    return JobReport(
        out=job.request.out,
        pictures=job.listing.count_images(job.numbers),
        done=sum(count.rows for count in counts),
        failed=failed,
        captioned=captioned,
        seconds=time.monotonic() - started,
        shards=len(job.numbers),
        shards_done=len(counts),
        whole=len(result.counts) == len(job.listing),
        failures=f"{job.request.store.location}/{FAILURES}" if failed and not job.request.temporary else None,
        duplicates=result.duplicates,
        new=new,
        preserved=result.preserved,
        unwritten=result.unwritten,
    )
