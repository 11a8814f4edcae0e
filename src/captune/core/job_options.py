"""The options of a job that captions into a folder, declared once like those of `captune.core.options`."""

from __future__ import annotations

from captune.core.option import Options, option


class JobOptions(Options):
    """How a job is divided, and what becomes of one that the folder holds already."""

    shard_size: int = option(1000, "Pictures in a result file; what a restart does again is at most that.", ge=1)
    part: str = option(
        "1/1", "2/8: only the second of eight parts of the job; they may run at once.", pattern=r"^\d+/\d+$"
    )
    resume: bool = option(True, "Go on with the job that --out holds; --no-resume: stop where it holds one.")
    restart: bool = option(False, "Throw away the job that --out holds and start anew.")
    retry_failed: bool = option(False, "Take the pictures of a job again that could not be captioned.")
    dry_run: bool = option(False, "Count pictures and what is done; load and write nothing.")
