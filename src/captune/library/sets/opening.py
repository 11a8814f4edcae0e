"""Whether a folder is a data set or a job, and which."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from captune.core.stores import MANIFEST
from captune.datasets.prepared import is_prepared, undo_stopped
from captune.library.sets.data_set import DataSet
from captune.library.sets.job import JobSet
from captune.library.sets.prepared import PreparedSet


def open_set(
    folder: Path, images: str | os.PathLike[str] | None = None, *, allow_outside: bool = False
) -> DataSet | None:
    """The data set or the job in a folder; None for a folder of images, also where a job lies among them.

    Raises `CaptuneError` for a data set of questions.

    `images` is the folder of a job's images where it was not run here; `allow_outside`: they may lie anywhere.
    """
    if not is_prepared(folder):
        with suppress(OSError):
            undo_stopped(folder)
    if is_prepared(folder):
        prepared = PreparedSet(folder, trusted=allow_outside)
        prepared.check()
        return prepared
    if (folder / MANIFEST).is_file():
        job = JobSet(folder, Path(images) if images is not None else None, trusted=allow_outside)
        return None if job.is_among_images else job
    return None
