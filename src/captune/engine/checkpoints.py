"""Checkpoints that are whole or absent, the two best among them, and what may be deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from captune.core.errors import CaptuneError
from captune.core.files import write_json
from captune.core.runs import COMPLETE, POINTERS, Checkpoint, Run

STAGING = ".incoming"
LOWER_IS_BETTER = frozenset({"loss"})


def write_checkpoint(
    run: Run, step: int, epoch: float, fill: Callable[[Path], None], extra: dict[str, Any]
) -> Checkpoint:
    """Let `fill` write into a staging folder, mark it complete, and rename it into place.

    A kill or a full disk at any moment leaves the earlier checkpoints as they were.
    """
    target = run.checkpoints_folder / f"checkpoint-{step}"
    staging = run.checkpoints_folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        fill(staging)
        sizes = {str(f.relative_to(staging)): f.stat().st_size for f in sorted(staging.rglob("*")) if f.is_file()}
        for name in sizes:
            _sync(staging / name)
        write_json(staging / COMPLETE, {"step": step, "epoch": epoch, **extra, "files": sizes})
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
        _sync(run.checkpoints_folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, RuntimeError) and not _is_write_failure(error):
            raise
        last = run.last()
        kept = f"{last.path} is whole" if last else "there is no earlier checkpoint"
        raise CaptuneError(
            f"Checkpoint {step} could not be written to {run.checkpoints_folder}: {_reason(error)}.",
            f"Nothing else was touched ({kept}). Free some disk space and run the same command with --resume.",
        ) from error
    return Checkpoint(target, step, epoch)


def _is_write_failure(error: BaseException) -> bool:
    # torch.save reports a full disk as a RuntimeError of its zip writer.
    return "PytorchStreamWriter" in str(error) or "No space left" in str(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "no space left on the disk" if _is_write_failure(error) else str(error)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether every file has the size that was written down."""
    sizes = read_mark(checkpoint).get("files", {})
    return bool(sizes) and all(
        (checkpoint.path / name).is_file() and (checkpoint.path / name).stat().st_size == size
        for name, size in sizes.items()
    )


def read_mark(checkpoint: Checkpoint) -> dict[str, Any]:
    """What stands in `complete.json`: step, epoch, scores, files, and the trainer's running sums."""
    return json.loads((checkpoint.path / COMPLETE).read_text(encoding="utf-8"))


def planned_steps(checkpoint: Checkpoint) -> int:
    """How many optimizer steps the training of a checkpoint was to have in all."""
    return int(json.loads((checkpoint.path / "trainer_state.json").read_text(encoding="utf-8"))["max_steps"])


def last_whole(run: Run) -> Checkpoint | None:
    """The newest checkpoint whose files are all there."""
    return next((c for c in reversed(run.checkpoints()) if is_whole(c)), None)


def better(metric: str, score: float, than: float | None) -> bool:
    """Whether `score` beats `than`; equal scores keep the earlier."""
    if than is None:
        return True
    return score < than if metric in LOWER_IS_BETTER else score > than


def best_of(checkpoints: list[Checkpoint], metric: str) -> Checkpoint | None:
    """The checkpoint with the best validation `metric` (`loss`, `cider`, …), or None where none has it."""
    best: tuple[float, Checkpoint] | None = None
    for checkpoint in checkpoints:
        score = read_mark(checkpoint).get("scores", {}).get(metric)
        if score is not None and better(metric, score, best[0] if best else None):
            best = (score, checkpoint)
    return best[1] if best else None


def update_pointers(run: Run, best_metric: str) -> None:
    """Point `best-loss` and `best-metric` at the best of the whole checkpoints."""
    checkpoints = run.checkpoints()
    for pointer, metric in zip(POINTERS, (best_metric, "loss"), strict=True):
        chosen = best_of(checkpoints, metric) or best_of(checkpoints, "loss")
        if chosen is not None:
            run.point(pointer, chosen.name)


def rotate(run: Run, keep: int) -> None:
    """Delete old checkpoints but the newest `keep` (0: all), the best two, and the untrained start."""
    if keep == 0:
        return
    named = {run.pointed(pointer) for pointer in POINTERS}
    for checkpoint in run.checkpoints()[:-keep]:
        if checkpoint.name not in named and checkpoint.step > 0:
            # The mark goes first: a half-deleted folder must not count as whole.
            (checkpoint.path / COMPLETE).unlink()
            shutil.rmtree(checkpoint.path, ignore_errors=True)
