"""What may change when a training goes on: what leaves its mathematics as they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from captune.app.provenance import keep_session
from captune.core.aliases import with_new_names
from captune.core.config import Resolved, dump, resolve
from captune.core.epochs import ChosenEpochs
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import write_text
from captune.core.options import TrainConfig
from captune.core.progress import Progress
from captune.core.runs import CONFIG, HISTORY, MANIFEST, POINTERS, Checkpoint, Run

# For one session: these do not touch the weights.
FREE_TO_CHANGE = (
    "loader_workers",
    "logging_steps",
    "keep_checkpoints",
    "keep_epochs",
    "early_stopping_patience",
    "early_stopping_metric",
    "trackers",
    "sample_captions",
    "device",
    "threads",
    "decoder",
    "push_to",
)
# For the rest of the run: the same sums, in parts that need less (or more) memory.
STEP = ("batch_size", "gradient_accumulation")
SAME_SUMS = (*STEP, "gradient_checkpointing", "eval_batch_size")
_WHY = {
    "precision": "It would compute in other numbers.",
    "cache_features": "Features are kept in bf16: it would learn from rounded ones.",
    "captions_per_image": "Steps would hold other references.",
    **dict.fromkeys(("epochs", "max_steps", "schedule"), "The learning rate follows the planned length."),
    **dict.fromkeys(("num_beams", "validation_images", "best_metric"), "Validations could no longer be compared."),
}


def resolve_resumed(
    run: Run,
    config: Any,
    preset: str | None,
    sets: Iterable[str],
    environment: Mapping[str, str],
    options: Mapping[str, Any],
) -> Resolved[TrainConfig]:
    """The run's own configuration; what is given anew must agree, but for what cannot change the weights."""
    try:
        saved = resolve(TrainConfig, file=run.path / CONFIG)
    except UsageError as error:
        raise UsageError(
            error.message, f"Remove it: captune train --resume --out {run.path} then has the options of {MANIFEST}."
        ) from None
    check_unedited(run, saved.values)
    given = resolve(TrainConfig, preset=preset, file=config, environment=environment, flags=options, sets=sets)
    changed: dict[str, Any] = {}
    for key, source in given.sources.items():
        section, _, name = key.partition(".")
        new, old = getattr(getattr(given.values, section), name), getattr(getattr(saved.values, section), name)
        if new == old:
            continue
        if name not in (*FREE_TO_CHANGE, *SAME_SUMS):
            why = f" {_WHY[name]}" if name in _WHY else ""
            raise UsageError(
                f"{source}: the run {run.path} began with {name} = {old}, not {new}; it must go on as it began.{why}",
                f"Leave it out, or start a new run with another --out. These may change: {', '.join(FREE_TO_CHANGE)}; "
                f"{', '.join(SAME_SUMS[2:])}; and {' and '.join(STEP)} together, if their product stays.",
            )
        changed[name] = new
    _check_step(run, saved.values, changed)
    return resolve(TrainConfig, file=run.path / CONFIG, flags=changed)


def is_begun(run: Run) -> bool:
    """Whether a training began in the folder, be it that it was killed before all of its first files were there."""
    return Run.is_run(run.path) or (run.path / MANIFEST).is_file()


def not_begun(run: Run) -> UsageError:
    """The error for `--resume` where there is nothing to go on with."""
    missing = [name for name in (MANIFEST, CONFIG) if not (run.path / name).is_file()]
    why = f"it has no {' and no '.join(missing)}" if run.path.is_dir() else "there is no such folder"
    return UsageError(
        f"{run.path} is not a run: {why}.",
        "Check --out (captune runs list FOLDER shows the runs in a folder), or begin one: --data DIR --model MODEL.",
    )


def restored(run: Run, progress: Progress) -> bool:
    """Whether there is a run to go on with; a `config.yaml` that is missing is written again from the manifest."""
    if Run.is_run(run.path) or not is_begun(run):
        return Run.is_run(run.path)
    began = run.manifest().get("options")
    if not isinstance(began, dict):
        return False
    write_text(run.path / CONFIG, dump(TrainConfig.model_validate(began)))
    progress.info(f"{run.path / CONFIG} is missing: the options are those in {MANIFEST}.")
    return True


def check_trained(run: Run, checkpoint: Checkpoint | None, damaged: Mapping[str, str]) -> None:
    """Raises `CaptuneError` where a run has trained and none of its checkpoints is whole."""
    lost = [what for name, what in damaged.items() if not name.endswith("-0")]
    if not damaged:
        # A kill before the first checkpoint leaves none either, but nothing that names one.
        named = {name for pointer in POINTERS if (name := run.pointed(pointer)) and not name.endswith("-0")}
        lost = [f"{run.checkpoints_folder / name} is missing" for name in sorted(named)]
    if lost and (checkpoint is None or checkpoint.step == 0):
        raise CaptuneError(
            f"No checkpoint of {run.path} is whole: {'; '.join(lost)}.",
            "Restore one from a copy, or start a new run with another --out.",
        )


def go_on(
    run: Run,
    checkpoint: Checkpoint,
    config: TrainConfig,
    data: Mapping[str, Any],
    damaged: Mapping[str, str],
    progress: Progress,
) -> None:
    """Have the run folder stand where the checkpoint stood, and write down and tell what is otherwise now."""
    from captune.engine.checkpoints import DAMAGED, mark_of, rotate, set_aside, update_pointers
    from captune.engine.history import cut_history, history_digest

    for name, what in damaged.items():
        progress.warn(f"{name} is damaged and is set aside as {DAMAGED}{name}: {what}.")
    set_aside(run, damaged)
    progress.info(f"Resuming {run.path} from {checkpoint.name} (epoch {checkpoint.epoch:.2f}).")
    keep_session(run, checkpoint.step, data, damaged, progress)
    said = keep_changes(run, config, checkpoint.step)
    if said:
        progress.info(said)
    cut_history(run, checkpoint.step)
    if mark_of(checkpoint).get("history") not in (None, history_digest(run)):
        progress.warn(f"{run.path / HISTORY} is not as it was at {checkpoint.name}: its figures were changed or lost.")
    update_pointers(run, config.train.best_metric)
    permanent = ChosenEpochs.parse(config.train.keep_epochs)
    per_epoch = max(1, round(checkpoint.step / checkpoint.epoch))
    # A kill may have come between the last checkpoint and this.
    rotate(run, config.train.keep_checkpoints, lambda step: permanent.at(step, per_epoch))


def check_unedited(run: Run, saved: TrainConfig) -> None:
    """Raises `UsageError` where `config.yaml` no longer says what the run began with."""
    began = run.manifest().get("options", {})
    for section, options in saved.model_dump(mode="json").items():
        for name, value in options.items():
            before = with_new_names(began.get(section, {})).get(name, value)
            if before != value and name not in (*FREE_TO_CHANGE, *SAME_SUMS):
                raise UsageError(
                    f"{run.path / CONFIG} says {section}.{name} = {value}, and the run began with {before}; "
                    "it must go on as it began.",
                    "Put it back, or start a new run with another --out: options may change with --resume, not there.",
                )


def _check_step(run: Run, saved: TrainConfig, changed: Mapping[str, Any]) -> None:
    """A step must go on to sum up the same images; raises `UsageError` with the numbers that do."""
    learn = saved.train
    if not any(name in changed for name in STEP):
        return
    if learn.stage == "scst":
        raise UsageError(
            f"The run {run.path} trains with rewards (scst), whose steps are means of batches: {STEP[0]} and {STEP[1]} "
            "cannot change.",
            "Leave them out; --gradient-checkpointing may change.",
        )
    batch, parts = (changed.get(name, getattr(learn, name)) for name in STEP)
    whole = learn.batch_size * learn.gradient_accumulation
    if batch * parts != whole:
        fits = f"--batch-size {batch} --gradient-accumulation {whole // batch}" if whole % batch == 0 else ""
        raise UsageError(
            f"The run {run.path} learns from {learn.batch_size} × {learn.gradient_accumulation} = {whole} images in a "
            f"step (batch size × gradient accumulation), and {batch} × {parts} = {batch * parts} would be others.",
            f"Give both: {fits or equal_steps(learn.batch_size, learn.gradient_accumulation) or 'another product'}",
        )


def equal_steps(batch_size: int, accumulation: int) -> str:
    """Flags for the same step in batches of half the size or less; empty for batches of one image."""
    smaller = next((n for n in range(batch_size // 2, 0, -1) if batch_size % n == 0), 0)
    if not smaller:
        return ""
    return f"--batch-size {smaller} --gradient-accumulation {accumulation * batch_size // smaller}"


def keep_changes(run: Run, config: TrainConfig, step: int) -> str:
    """Write into the run what changes for the rest of it, from optimizer step `step` on; returns it in words."""
    saved = resolve(TrainConfig, file=run.path / CONFIG).values
    changed: dict[str, dict[str, Any]] = {"train": {}, "eval": {}}
    told = {}
    for section, names in (("train", SAME_SUMS[:3]), ("eval", SAME_SUMS[3:])):
        for name in names:
            old, new = getattr(getattr(saved, section), name), getattr(getattr(config, section), name)
            if new != old:
                changed[section][name] = new
                told[name] = [old, new]
    if not told:
        return ""
    sections = {section: getattr(saved, section).model_copy(update=new) for section, new in changed.items()}
    write_text(run.path / CONFIG, dump(saved.model_copy(update=sections)))
    manifest = run.manifest()
    run.write_manifest({**manifest, "changed": [*manifest.get("changed", []), {"step": step, **told}]})
    words = ", ".join(f"{name} {new} instead of {old}" for name, (old, new) in told.items())
    same = "Every step sums up the same images: the same loss (dropout, if any, draws other numbers)."
    return f"From here on {words}. {same if any(name in told for name in STEP) else 'The loss is the same.'}"
