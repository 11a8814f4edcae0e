"""Checkpoints that are whole or absent, the two best among them, and what may be deleted."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import sync_folder, sync_tree, write_json
from captune.core.files.fingerprints import contents_of, linked_digests, sealed
from captune.core.files.limits import parse_json
from captune.core.machine import DiskFull, free_space, in_bytes, is_disk_full
from captune.core.runs import COMPLETE, POINTERS, Checkpoint, Run, checkpoint_damage, read_mark
from captune.training.selection import choose

STAGING = ".incoming"
DAMAGED = "damaged-"


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
        last = run.last()
        # Frozen weights are one file with many names: it is read once in a training.
        contents = contents_of(staging, linked_digests(last.path, mark_of(last)) if last else {})
        write_json(staging / COMPLETE, sealed({"step": step, "epoch": epoch, **extra, **contents}))
        sync_tree(staging)
        _remove(target)
        os.replace(staging, target)
        sync_folder(run.checkpoints_folder)
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
    needed = sum(mark_of(last).get("files", {}).values()) if last and last.step else 0
    room = f"{free_space(run.path)}{f', and the one before has {in_bytes(needed)}' if needed else ''}"
    stays = f"{last.path} is whole" if last else "there is no earlier checkpoint"
    full = is_disk_full(error) or isinstance(error, DiskFull)
    why = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
    return (DiskFull if full else CaptuneError)(
        f"Checkpoint {step} could not be written to {run.checkpoints_folder}{reached}: {why} ({room}).",
        f"Nothing else was touched ({stays}). Free some disk space, then: captune train --resume --out {run.path}",
    )


def mark_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What stands in `complete.json`: step, epoch, scores, files, and the trainer's running sums."""
    mark = read_mark(checkpoint.path)
    if mark is None:
        raise CaptuneError(
            f"{checkpoint.path / COMPLETE} is missing or damaged.", "Name another checkpoint, or restore the folder."
        )
    return mark


def planned_steps(checkpoint: Checkpoint) -> int:
    """How many optimizer steps the training of a checkpoint was to have in all."""
    return int(parse_json((checkpoint.path / "trainer_state.json").read_text(encoding="utf-8"))["max_steps"])


def last_whole(run: Run) -> tuple[Checkpoint | None, dict[str, str]]:
    """The newest checkpoint whose files are all as they were written, and newer folders with what is wrong there.

    Reads every file of the checkpoints that it looks at.
    """
    damaged: dict[str, str] = {}
    for folder in sorted(_folders(run), key=_step, reverse=True):
        mark = read_mark(folder)
        problem = f"{folder / COMPLETE} is missing or damaged" if mark is None else checkpoint_damage(folder)
        if mark is not None and not mark.get("files"):
            problem = f"{folder / COMPLETE} names no files"
        if mark is not None and not problem:
            return Checkpoint(folder, int(mark["step"]), float(mark["epoch"])), damaged
        damaged[folder.name] = problem
    return None, damaged


def set_aside(run: Run, damaged: Iterable[str]) -> None:
    """Rename damaged checkpoints, so that the training that goes on neither counts nor deletes them."""
    for name in damaged:
        target = run.checkpoints_folder / f"{DAMAGED}{name}"
        shutil.rmtree(target, ignore_errors=True)
        os.replace(run.checkpoints_folder / name, target)
    sync_folder(run.checkpoints_folder)


def _folders(run: Run) -> list[Path]:
    return [path for path in run.checkpoints_folder.glob("checkpoint-*") if path.is_dir() and _step(path) >= 0]


def _step(folder: Path) -> int:
    digits = folder.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def _remove(folder: Path) -> None:
    """Delete a checkpoint; its mark goes first: a half-deleted folder must not count as whole."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


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
            _remove(checkpoint.path)
    for folder in _folders(run):
        if not (folder / COMPLETE).exists():  # a kill came between its mark and its files
            shutil.rmtree(folder, ignore_errors=True)
