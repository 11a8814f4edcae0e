"""How the files of a job are called. Names that begin with _ are passed over by readers of whole folders."""

from __future__ import annotations

import re

JOB = "_job"
MANIFEST = f"{JOB}/manifest.json"
SHARD_LIST = f"{JOB}/pieces.jsonl"
FAILURES = f"{JOB}/failures.jsonl"
DUPLICATES = f"{JOB}/duplicates.jsonl"
REPORT = f"{JOB}/report.json"
# Digests of the files of captions that captune wrote: one that is not in it is a person's. At an address, where no line
# can be added to a file, each run has its own: `_job/written-…`.
WRITTEN = f"{JOB}/written"
_RESULT = re.compile(r"captions-\d{5,}\.(jsonl|csv|parquet|tar)")


def is_result(name: str) -> bool:
    """Whether a file of a job's folder holds captions, by its name."""
    return _RESULT.fullmatch(name) is not None


def is_ledger(name: str) -> bool:
    """Whether a file of a job's folder holds digests of what captune wrote."""
    return name == WRITTEN or name.startswith(f"{WRITTEN}-")


def fingerprints_name(number: int) -> str:
    """What the images of a shard look like."""
    return f"{JOB}/looks-{number:05d}.bin"


# The numbers of an explained caption, beside its sheet.
EXPLAINED = ".explained.json"
