"""What became of a job, in numbers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from captune.app.bulk_end import JobResult
from captune.app.bulk_start import Job
from captune.data.bulk.names import FAILURES


@dataclass(frozen=True)
class JobReport:
    """What became of a job, or of a part of it.

    `out` is where the captions are, `pictures` how many the part has (None where only reading tells), `done` those in
    whole shards, `failed` those of them without a caption, which `failures` lists; `captioned` and `seconds` are of
    this run. `shards` of the part are in their place to the number of `shards_done`; `whole`: all parts are.
    `duplicates` pairs look alike (None: not looked for), `new` files have come to the inputs since the job began,
    `preserved` captions that captune did not write stayed as they were (`existing`); the files of `unwritten` images
    could not be written.
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
        """Pictures a second of this run."""
        return self.captioned / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


def make_report(job: Job, out: str, found: JobResult, started: float, captioned: int = 0, new: int = 0) -> JobReport:
    counted = found.counted
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
        failures=f"{job.request.store.location}/{FAILURES}" if failed and not job.request.temporary else None,
        duplicates=found.duplicates,
        new=new,
        preserved=found.preserved,
        unwritten=found.unwritten,
    )
