"""A run's folder at the start and at the end of a training."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from captune.core.errors import CaptuneError, first_line
from captune.core.files import folders_to_make, read_json, write_json
from captune.core.files.locks import Lock
from captune.core.machine import DiskFull, OutOfMemory
from captune.core.options import TrainConfig
from captune.core.progress import Progress
from captune.core.runs import CONFIG, HISTORY, LOCK, MANIFEST, POINTERS, SPLITS, TRAIN_METRICS, Checkpoint, Ending, Run
from captune.metrics.ngrams import FILE as DOCUMENT_FREQUENCIES

if TYPE_CHECKING:
    from captune.training.loop.trainer import CaptionTrainer


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


@contextmanager
def recorded_ending(
    run: Run, trainer: CaptionTrainer, callbacks: Sequence[Any], config: TrainConfig, progress: Progress, *, first: bool
) -> Iterator[None]:
    """Record in the run why the training within the block ended; errors pass through."""
    if first:
        record_ending(run, None)
    try:
        yield
    except BaseException as error:
        ending = _of(callbacks) or _of_error(error, trainer)
        if first:
            with suppress(CaptuneError):  # a full disk: the error that ends the training is the one to report
                record_ending(run, ending)
        _end_trackers(trainer, ending)
        raise
    state = trainer.state
    done = state.global_step >= state.max_steps
    ending = (None if done else _of(callbacks)) or all_done(config, state.global_step, float(state.epoch or 0.0))
    if first:
        record_ending(run, ending)
        progress.info(f"Training ended: {ending.text}.")
    _end_trackers(trainer, ending)


def _end_trackers(trainer: CaptionTrainer, ending: Ending) -> None:
    from captune.training.trackers import GuardedTracker

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, GuardedTracker):
            callback.end(ending, trainer.args, trainer.state, trainer.control)


def record_ending(run: Run, ending: Ending | None) -> None:
    """Write an ending into the run's manifest; None takes out what an earlier part of the training left."""
    manifest = run.manifest()
    manifest.pop("ended", None)
    run.write_manifest({**manifest, **({"ended": ending.to_json()} if ending else {})})


def all_done(config: TrainConfig, step: int, epoch: float) -> Ending:
    """The ending of a training that took all its steps."""
    limit = config.train.max_steps
    if limit:
        return Ending("max-steps", f"all {limit} steps are done (--max-steps, epoch {epoch:.4g})", step, epoch)
    return Ending("all-epochs", f"all {config.train.epochs:g} epochs are done (step {step})", step, epoch)


def _of(callbacks: Sequence[Any]) -> Ending | None:
    found = (getattr(callback, "ending", None) for callback in callbacks)
    return next((ending for ending in found if isinstance(ending, Ending)), None)


def _of_error(error: BaseException, trainer: CaptionTrainer) -> Ending:
    step, epoch = trainer.state.global_step, float(trainer.state.epoch or 0.0)
    if isinstance(error, KeyboardInterrupt):
        return Ending("signal", f"stopped at once by a second signal behind step {step}", step, epoch)
    reason = first_line(error, with_type=not isinstance(error, CaptuneError))
    return Ending("error", f"an error behind step {step}: {reason}", step, epoch, {"error": type(error).__name__})


def sum_up(run: Run, reached: Checkpoint, config: TrainConfig, seconds: float) -> None:
    """Write `train_metrics.json` and the drawn losses, and mark the run finished."""
    from captune.training.history import draw_losses
    from captune.training.loop.checkpoints import mark_of
    from captune.training.selection import RULES, choose

    best = run.checkpoint("best")
    history = run.history()
    losses = [line["loss"] for line in history if "loss" in line]
    if "ended" not in run.manifest():
        record_ending(run, all_done(config, reached.step, reached.epoch))
    manifest = run.manifest()
    metrics = {
        "epoch": reached.epoch,
        "steps": reached.step,
        "train_runtime": seconds,
        "train_loss": losses[-1] if losses else None,
        "ended": manifest["ended"],
        "best_metric": config.train.best_metric,
        "selection": {rule: asdict(choice) for rule in RULES if (choice := choose(history, rule)) is not None},
        "best_checkpoint": best.name,
        "best_epoch": best.epoch,
        **{f"eval_{name}": value for name, value in mark_of(best)["scores"].items()},
    }
    write_json(run.path / TRAIN_METRICS, metrics)
    draw_losses(history, run.path / "loss.png")
    run.write_manifest({**manifest, "finished": True})


def metrics_of(run: Run) -> dict[str, Any]:
    """What `sum_up` wrote."""
    found: dict[str, Any] = read_json(run.path / TRAIN_METRICS)
    return found
