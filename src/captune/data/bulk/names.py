"""How the files of a job are called. Names that begin with _ are passed over by readers of whole folders."""

from __future__ import annotations

JOB = "_job"
MANIFEST = f"{JOB}/manifest.json"
PIECES = f"{JOB}/pieces.jsonl"
FAILURES = f"{JOB}/failures.jsonl"
DUPLICATES = f"{JOB}/duplicates.jsonl"
REPORT = f"{JOB}/report.json"


def looks_name(number: int) -> str:
    """What the pictures of a shard look like."""
    return f"{JOB}/looks-{number:05d}.bin"
