"""The folder of a training: locked, begun or cleared at its start, its ending and summary recorded."""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from captune.core.config import dump
from captune.core.errors import CaptuneError
from captune.core.files import folders_to_make, read_json, write_json, write_text
from captune.core.files.locks import Lock
from captune.core.machine import DiskFull, OutOfMemory
from captune.core.options.verbs import Config
from captune.core.progress import Progress
from captune.core.runs import CONFIG, HISTORY, LOCK, MANIFEST, POINTERS, SPLITS, TRAIN_METRICS, Ending, Run
from captune.datasets.prepared import PreparedData
from captune.metrics.ngrams import FILE as DOCUMENT_FREQUENCIES

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

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
def locked_run(run: Run, progress: Progress, *, first: bool) -> Iterator[None]:
    """Lock the folder of a training in its `first` process; an empty folder is removed afterwards.

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


def clear_untrained(run: Run, progress: Progress) -> None:
    """Remove what a training without a checkpoint left in its folder; other files stay.

    Raises `CaptuneError` where the folder holds a training with a checkpoint, or anything else.
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


class StartGuard:
    """Leaves the folder as it was where a training fails before `keep` is called.

    Not where memory or disk run out: what was begun goes on with --resume.
    """

    def __init__(self, run: Run, *, first: bool) -> None:
        self._run = run
        self._keep = not first or (run.path / MANIFEST).exists()

    def keep(self) -> None:
        """From here on the folder holds something."""
        self._keep = True

    def __enter__(self) -> StartGuard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self._keep or isinstance(error, (OutOfMemory, DiskFull)):
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


def begin_run(
    run: Run, data: PreparedData, facts: Mapping[str, Any], config: Config, backbone: Backbone, processes: int
) -> None:
    """Write down what the run is before its first step."""
    from captune.core.machine import versions

    _clear(run.path, stays=(CONFIG, MANIFEST))
    parameters = list(backbone.model.parameters())
    # The manifest is first and holds the options too: with it the folder is known to be captune's own, and goes on.
    run.write_manifest(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            **facts,
            "family": backbone.family,
            "seed": config.train.seed,
            "processes": processes,
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "parts": {name: sum(p.numel() for p in part) for name, part in backbone.parts().items()},
            "versions": versions(),
            "finished": False,
            "options": config.model_dump(mode="json"),
        }
    )
    write_text(run.path / CONFIG, dump(config))
    write_text(run.path / SPLITS, (data.folder / SPLITS).read_text(encoding="utf-8"))


def record_ending(run: Run, ending: Ending | None) -> None:
    """Write an ending into the run's manifest; None takes out what an earlier part of the training left."""
    manifest = run.manifest()
    manifest.pop("ended", None)
    run.write_manifest({**manifest, **({"ended": asdict(ending)} if ending else {})})


def all_done(config: Config, step: int, epoch: float) -> Ending:
    """The ending of a training that took all its steps."""
    limit = config.train.max_steps
    if limit:
        return Ending("max-steps", f"all {limit} steps are done (--max-steps, epoch {epoch:.4g})", step, epoch)
    epochs = "the one epoch is" if config.train.epochs == 1 else f"all {config.train.epochs:g} epochs are"
    return Ending("all-epochs", f"{epochs} done (step {step})", step, epoch)


def write_summary(run: Run, config: Config, seconds: float) -> None:
    """Write `train_metrics.json` and the drawn losses, and mark the run finished."""
    from captune.training.history import draw_losses
    from captune.training.loop.checkpoints import mark_of
    from captune.training.selection import RULES, choose

    reached, best = run.checkpoint("last"), run.checkpoint("best")
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
