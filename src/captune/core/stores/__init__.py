"""Names of the files of a job. Readers of whole folders skip names that begin with _."""

import re

JOB = "_job"
MANIFEST = f"{JOB}/manifest.json"
SHARD_LIST = f"{JOB}/pieces.jsonl"
FAILURES = f"{JOB}/failures.jsonl"
DUPLICATES = f"{JOB}/duplicates.jsonl"
REPORT = f"{JOB}/report.json"
# Digests of the caption files that captune wrote: a file that is not in it is a person's. In a remote store, where no
# line can be added to a file, each run has its own: `_job/written-…`.
WRITTEN = f"{JOB}/written"
_RESULT = re.compile(r"captions-\d{5,}\.(jsonl|csv|parquet|tar)")


def is_result(name: str) -> bool:
    """Whether a file of a job's folder holds captions, by its name."""
    return _RESULT.fullmatch(name) is not None


def is_ledger(name: str) -> bool:
    """Whether a file of a job's folder holds digests of what captune wrote."""
    return name == WRITTEN or name.startswith(f"{WRITTEN}-")


def fingerprints_name(number: int) -> str:
    """The file of the fingerprints of a shard's images."""
    return f"{JOB}/looks-{number:05d}.bin"


# The numbers of an explained caption, beside its sheet.
EXPLAINED = ".explained.json"
