"""A training's folder before anything is learned: a refused start leaves none, and an untrained one can begin again."""

from __future__ import annotations

import os
import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from captune.core.disk import DiskFull
from captune.core.errors import CaptuneError
from captune.core.files import is_running, read_json
from captune.core.folders import missing_folders
from captune.core.memory import OutOfMemory
from captune.core.progress import Progress
from captune.core.runs import CONFIG, HISTORY, MANIFEST, POINTERS, SPLITS, TRAIN_METRICS, Run
from captune.metrics.document_frequencies import FILE as DOCUMENT_FREQUENCIES

# What a training writes; everything else in its folder is somebody's.
_OWN = (
    *(CONFIG, MANIFEST, SPLITS, HISTORY, TRAIN_METRICS, DOCUMENT_FREQUENCIES, *POINTERS),
    *("loss.png", "checkpoints", "tensorboard", "wandb", "wandb-run.txt", "wandb-steps.json"),
    *("mlflow", "mlflow-run.txt", "mlflow-steps.json"),
)
_TRAINED = re.compile(r"checkpoint-0*[1-9]\d*")


def this_process() -> dict[str, Any]:
    """What a manifest holds of the process that trains."""
    return {"host": socket.gethostname(), "number": os.getpid()}


def make_room(run: Run, progress: Progress) -> None:
    """Let a new training begin in its folder; raises `CaptuneError` where that holds something to keep.

    Of a training that never came to a checkpoint, captune's own files make room; what else lies there stays.
    """
    if not (run.path.is_dir() and any(run.path.iterdir())):
        return
    if not _is_untrained(run.path):
        raise CaptuneError(
            f"The folder {run.path} is not empty.",
            "Go on with it by --resume, or choose another --out." if Run.is_run(run.path) else "Choose another --out.",
        )
    process = read_json(run.path / MANIFEST).get("process", {})
    number = process.get("number", 0)
    if process.get("host") == socket.gethostname() and number != os.getpid() and is_running(number):
        raise CaptuneError(
            f"Another process ({number}) trains in {run.path}, and has no checkpoint yet.",
            "Let it go on, or end it; or choose another --out.",
        )
    progress.say(f"Nothing was trained yet in {run.path}: it begins again.")
    _clear(run.path)


class Start:
    """Around a training: what goes wrong before `learning` is called leaves the folder as it was.

    Want of memory or room does not: what was begun goes on with --resume.
    """

    def __init__(self, run: Run, *, first: bool) -> None:
        self._run = run
        self._missing = missing_folders(run.path)
        self._kept = not first or (run.path / MANIFEST).exists()

    def learning(self) -> None:
        """From here on the folder holds something."""
        self._kept = True

    def __enter__(self) -> Start:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._kept or isinstance(error, (OutOfMemory, DiskFull)):
            return
        if self._run.path.is_dir():
            _clear(self._run.path)
        for folder in self._missing:
            with suppress(OSError):  # it holds something, or was never made
                folder.rmdir()


def _is_untrained(folder: Path) -> bool:
    """Whether `captune train` has begun here and never come to a checkpoint."""
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir() and any(_TRAINED.fullmatch(path.name) for path in checkpoints.iterdir()):
        return False
    try:
        return "data_digest" in read_json(folder / MANIFEST)
    except CaptuneError:
        return False


def _clear(folder: Path) -> None:
    for name in _OWN:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
