"""A training's folder before anything is learned: a refused start leaves none, and an untrained one can begin again."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType

from captune.core.disk import DiskFull
from captune.core.errors import CaptuneError
from captune.core.files import read_json
from captune.core.folders import folders_to_make
from captune.core.locks import Lock
from captune.core.memory import OutOfMemory
from captune.core.progress import Progress
from captune.core.runs import CONFIG, HISTORY, LOCK, MANIFEST, POINTERS, SPLITS, TRAIN_METRICS, Run
from captune.metrics.document_frequencies import FILE as DOCUMENT_FREQUENCIES

# What a training writes; everything else in its folder is somebody's. The manifest is removed last: a folder that has
# it is known to be a training's, and can begin again.
_OWN = (
    *(CONFIG, SPLITS, HISTORY, TRAIN_METRICS, DOCUMENT_FREQUENCIES, *POINTERS),
    *("loss.png", "checkpoints", "tensorboard", "wandb", "wandb-run.txt", "wandb-steps.json"),
    *("mlflow", "mlflow-run.txt", "mlflow-steps.json", MANIFEST),
)
_TRAINED = re.compile(r"(damaged-)?checkpoint-0*[1-9]\d*")
_PART = re.compile(rf"\.({'|'.join(map(re.escape, _OWN))})\.\d+\.part")


@contextmanager
def reserved(run: Run, progress: Progress, *, first: bool) -> Iterator[None]:
    """Around a training, in its `first` process: no other trains into the folder, and no empty one is left.

    Raises `CaptuneError` where another training holds the run.
    """
    missing = folders_to_make(run.path)
    try:
        with run.lock() if first else nullcontext(Lock(works=True)) as lock:
            if not lock.works:
                progress.warn(f"The file system of {run.path} has no locks: start no second training into it.")
            elif lock.left_by and not lock.left_by.endswith(f" on {socket.gethostname()}"):
                progress.warn(
                    f"A training in {run.path} ({lock.left_by}) was killed, or still runs there: locks of some network "
                    "file systems do not reach other hosts."
                )
            yield
    finally:
        for folder in missing:
            with suppress(OSError):  # it holds something, or was never made
                folder.rmdir()


def make_room(run: Run, progress: Progress) -> None:
    """Let a new training begin in its folder; raises `CaptuneError` where that holds something to keep.

    Of a training that never came to a checkpoint, captune's own files make room; what else lies there stays.
    """
    there = [path.name for path in run.path.iterdir()] if run.path.is_dir() else []
    if not [name for name in there if name != LOCK and not _PART.fullmatch(name)]:
        _clear(run.path)
        return
    if not _is_untrained(run.path):
        raise CaptuneError(
            f"The folder {run.path} is not empty.",
            "Go on with it by --resume, or choose another --out." if Run.is_run(run.path) else "Choose another --out.",
        )
    progress.info(f"Nothing was trained yet in {run.path}: it begins again.")
    _clear(run.path)


def forget_start(run: Run) -> None:
    """Remove what a training left that came to no checkpoint, but what says how it began."""
    _clear(run.path, stays=(CONFIG, MANIFEST))


class Start:
    """Around a training: what goes wrong before `learning` is called leaves the folder as it was.

    Want of memory or room does not: what was begun goes on with --resume.
    """

    def __init__(self, run: Run, *, first: bool) -> None:
        self._run = run
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
        _clear(self._run.path)


def _is_untrained(folder: Path) -> bool:
    """Whether `captune train` has begun here and never come to a checkpoint."""
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir() and any(_TRAINED.fullmatch(path.name) for path in checkpoints.iterdir()):
        return False
    try:
        return "data_digest" in read_json(folder / MANIFEST)
    except (CaptuneError, TypeError):
        return False


def _clear(folder: Path, stays: Container[str] = ()) -> None:
    for part in folder.glob(".*.part"):
        if _PART.fullmatch(part.name):
            part.unlink(missing_ok=True)
    for name in _OWN:
        path = folder / name
        if name in stays:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
