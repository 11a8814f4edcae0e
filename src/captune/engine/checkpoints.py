"""Checkpoints that are whole or absent, the two best among them, and what may be deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captune.core.disk import DiskFull, free_space, in_bytes, is_disk_full
from captune.core.errors import CaptuneError
from captune.core.files import write_json
from captune.core.parsed import parse_json
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
    except Exception as error:  # what writes weights and tokenizers raises errors of its own
        if not isinstance(error, OSError) and not is_disk_full(error) and not isinstance(error, DiskFull):
            raise
        raise _not_written(run, step, error, staging) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Checkpoint(target, step, epoch)


def _not_written(run: Run, step: int, error: BaseException, staging: Path) -> CaptuneError:
    """What to tell where a checkpoint could not be written: the file, the room there is and was needed, what stays."""
    files = [path for path in staging.rglob("*") if path.is_file()]
    # Not every writer leaves the file that it could not finish.
    reached = f", at or after {max(files, key=lambda path: path.stat().st_mtime_ns).name}" if files else ""
    last = run.last()
    needed = sum(read_mark(last).get("files", {}).values()) if last and last.step else 0
    room = f"{free_space(run.path)}{f', and the one before has {in_bytes(needed)}' if needed else ''}"
    stays = f"{last.path} is whole" if last else "there is no earlier checkpoint"
    full = is_disk_full(error) or isinstance(error, DiskFull)
    why = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
    return (DiskFull if full else CaptuneError)(
        f"Checkpoint {step} could not be written to {run.checkpoints_folder}{reached}: {why} ({room}).",
        f"Nothing else was touched ({stays}). Free some disk space, then: captune train --resume --out {run.path}",
    )


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
    return parse_json((checkpoint.path / COMPLETE).read_text(encoding="utf-8"))


def planned_steps(checkpoint: Checkpoint) -> int:
    """How many optimizer steps the training of a checkpoint was to have in all."""
    return int(parse_json((checkpoint.path / "trainer_state.json").read_text(encoding="utf-8"))["max_steps"])


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


def rotate(run: Run, keep: int, stays: Callable[[int], bool]) -> None:
    """Delete old checkpoints but the newest `keep` (0: all), the best two, the untrained start and steps that stay."""
    if keep == 0:
        return
    named = {run.pointed(pointer) for pointer in POINTERS}
    for checkpoint in run.checkpoints()[:-keep]:
        if checkpoint.name not in named and checkpoint.step > 0 and not stays(checkpoint.step):
            # The mark goes first: a half-deleted folder must not count as whole.
            (checkpoint.path / COMPLETE).unlink()
            shutil.rmtree(checkpoint.path, ignore_errors=True)
