"""The end of a training: why it came, and the run summed up in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from captune.core.endings import Ending
from captune.core.errors import CaptuneError, first_line
from captune.core.files import read_json, write_json
from captune.core.options import TrainConfig
from captune.core.progress import Progress
from captune.core.runs import TRAIN_METRICS, Checkpoint, Run

if TYPE_CHECKING:
    from captune.engine.trainer import CaptionTrainer


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
    from captune.engine.guarded_tracker import GuardedTracker

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
    from captune.engine.checkpoints import mark_of
    from captune.engine.figures import draw_losses
    from captune.engine.selection import RULES, choose

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
