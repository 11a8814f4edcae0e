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
from captune.engine.selection import choose

STAGING = ".incoming"


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


def update_pointers(run: Run, rule: str) -> None:
    """Point `best-metric` at what a selection rule chooses, `best-loss` at the lowest loss; whole checkpoints only.

    The rule looks at all validations of the run; where the checkpoint of its choice is gone,
    at those whose checkpoints are there.
    """
    there = {checkpoint.step: checkpoint for checkpoint in run.checkpoints()}
    history = run.history()
    for pointer, name in zip(POINTERS, (rule, "loss"), strict=True):
        chosen = choose(history, name)
        if chosen is not None and chosen.step not in there:
            chosen = choose(history, name, there)
        if chosen is not None:
            run.point(pointer, there[chosen.step].name)


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
