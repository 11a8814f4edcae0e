"""What a run began with, and what may change when it is resumed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captune.core.aliases import with_new_names
from captune.core.config import Resolved, dump, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import write_text
from captune.core.files.fingerprints import difference, read_contents, split_fingerprint
from captune.core.options.training import ChosenEpochs
from captune.core.options.verbs import Config, config_of
from captune.core.progress import Progress
from captune.core.records import ImageRecord
from captune.core.runs import CONFIG, HISTORY, MANIFEST, POINTERS, Checkpoint, Run
from captune.datasets.prepared import PreparedData

# Those that the numbers of a training come from.
_PACKAGES = (
    *("python", "captune", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "pillow", "numpy"),
)
_NEW_RUN = "or start a new run with another --out."


def model_facts(model: str, config: Config) -> dict[str, Any]:
    """What the manifest holds of the model that a training begins with.

    Adapters go on the same weights after every stop: of a folder, those are known by a digest.
    """
    from captune.core.model_names import is_new, is_pair
    from captune.models.loading.identity import identity_of, revision_of

    digest = None
    if config.model.lora is not None and not is_new(model) and not is_pair(model):
        identity = identity_of(model)
        digest = identity.digest if identity else None
    return {"model": model, "model_revision": revision_of(model), "model_digest": digest}


def data_facts(data: PreparedData, splits: Mapping[str, Sequence[ImageRecord]]) -> dict[str, Any]:
    """What the manifest holds of the data; raises `CaptuneError` where an image is not there."""
    return {
        "data": str(data.folder.resolve()),
        "data_digest": data.digest,
        "data_splits": {name: split_fingerprint(records) for name, records in splits.items()},
    }


def check_same_model(run: Run, model: str, config: Config) -> None:
    """Raises `UsageError` where a run would go on with another model than it began with."""
    manifest = run.manifest()
    began = str(manifest.get("model", model))
    both = Path(model).expanduser(), Path(began).expanduser()
    if model != began and both[0].resolve() != both[1].resolve():
        raise UsageError(
            f"--model: the run {run.path} began with {began}, not {model}; it must go on as it began.",
            f"Leave --model out, {_NEW_RUN}",
        )
    if config.model.lora is None:
        return  # all weights are in the checkpoint
    for name, now in model_facts(model, config).items():
        if name != "model" and manifest.get(name) not in (None, now):
            raise UsageError(
                f"The model {model} is not the one that the adapters of {run.path} were trained on "
                f"({name.removeprefix('model_')} {now}, then {manifest[name]}).",
                f"Bring that one back, {_NEW_RUN}",
            )


def check_same_data(
    run: Run, data: PreparedData, splits: Mapping[str, Sequence[ImageRecord]], progress: Progress
) -> dict[str, Any]:
    """Raises `UsageError` where a run would go on with other data than it began with, saying what differs.

    Returns `data_facts`. Image files that are as large as then and were written since (copies, for example) are
    read and compared.
    """
    manifest = run.manifest()
    hint = f"Name the folder with the data it began with (--data), {_NEW_RUN}"
    if manifest.get("data_digest", data.digest) != data.digest:
        raise UsageError(
            f"--data: the run {run.path} began with other data than are in {data.folder} now "
            f"(began: {manifest.get('data')}).",
            hint,
        )
    facts = data_facts(data, splits)
    now = facts["data_splits"]
    for name, began in manifest.get("data_splits", {}).items():
        what = difference(began, now[name])
        if not what and began.get("times") != now[name]["times"]:
            known = data.summary.get("image_digests", {}).get(name)
            if known is None:
                progress.warn(f"The image files of {data.folder} are not those of the start, or copies; prepared by an "
                              "earlier version, they cannot be compared.")  # fmt: skip
                continue
            progress.info(f"The image files of the {name} split were written since the run began: comparing them.")
            what = "" if read_contents(splits[name]) == known else "other image files"
        if what:
            raise UsageError(
                f"--data: the {name} split of {data.folder} is not the one that the run {run.path} began with: {what}.",
                hint,
            )
    return facts


def changed_versions(run: Run) -> dict[str, list[str]]:
    """Packages of which another version is installed than the run last went on with: `[then, now]` by name."""
    from captune.core.machine import versions

    then = run.manifest().get("versions", {})
    now = versions()
    return {name: [then[name], now[name]] for name in _PACKAGES if name in then and then[name] != now[name]}


def record_session(
    run: Run, step: int, data: Mapping[str, Any], damaged: Mapping[str, str], progress: Progress
) -> None:
    """Write into the manifest what differs from optimizer step `step` on, and warn of it.

    `data` are its `data_facts` now, `damaged` the checkpoints that the run cannot go on from.
    """
    before, versions = run.manifest(), changed_versions(run)
    manifest = {**before, **data}
    noted: dict[str, Any] = {}
    if versions:
        noted["versions"] = versions
        manifest["versions"] = {**manifest["versions"], **{name: now for name, (_, now) in versions.items()}}
        listed = ", ".join(f"{name} {now} instead of {then}" for name, (then, now) in versions.items())
        progress.warn(f"Other versions than before: {listed}. The run goes on, but not bit for bit as it began.")
    if damaged:
        noted["damaged"] = dict(damaged)
    if before.get("data") != data["data"]:
        noted["data"] = [before.get("data"), data["data"]]
    if noted:
        manifest["changed"] = [*before.get("changed", []), {"step": step, **noted}]
    if manifest != before:
        run.write_manifest(manifest)


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
) -> Resolved:
    """The run's own configuration; options given again must agree, except those that cannot change the weights."""
    try:
        saved = resolve("train", file=run.path / CONFIG)
    except UsageError as error:
        raise UsageError(
            error.message, f"Remove it: captune train --resume --out {run.path} then has the options of {MANIFEST}."
        ) from None
    check_unedited(run, saved.values)
    given = resolve("train", preset=preset, file=config, environment=environment, flags=options, sets=sets)
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
    return resolve("train", file=run.path / CONFIG, flags=changed)


def has_begun(run: Run) -> bool:
    """Whether a training began in the folder, even if it was killed before all of its first files were written."""
    return Run.is_run(run.path) or (run.path / MANIFEST).is_file()


def no_run_error(run: Run) -> UsageError:
    """The error for `--resume` where there is nothing to go on with."""
    missing = [name for name in (MANIFEST, CONFIG) if not (run.path / name).is_file()]
    why = f"it has no {' and no '.join(missing)}" if run.path.is_dir() else "there is no such folder"
    return UsageError(
        f"{run.path} is not a run: {why}.",
        "Check --out (captune runs list FOLDER shows the runs in a folder), or begin one: --data DIR --model MODEL.",
    )


def restore_config(run: Run, progress: Progress) -> bool:
    """Whether there is a run to go on with; a `config.yaml` that is missing is written again from the manifest."""
    if Run.is_run(run.path) or not has_begun(run):
        return Run.is_run(run.path)
    began = run.manifest().get("options")
    if not isinstance(began, dict):
        return False
    write_text(run.path / CONFIG, dump(config_of("train").model_validate(began)))
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


def resume_run(
    run: Run,
    checkpoint: Checkpoint,
    config: Config,
    data: Mapping[str, Any],
    damaged: Mapping[str, str],
    progress: Progress,
) -> None:
    """Bring the run folder back to the checkpoint, and record and report what differs now."""
    from captune.training.history import cut_history, history_digest
    from captune.training.loop.checkpoints import DAMAGED, mark_of, rotate, set_aside, update_pointers

    for name, what in damaged.items():
        progress.warn(f"{name} is damaged and is set aside as {DAMAGED}{name}: {what}.")
    set_aside(run, damaged)
    progress.info(f"Resuming {run.path} from {checkpoint.name} (epoch {checkpoint.epoch:.2f}).")
    record_session(run, checkpoint.step, data, damaged, progress)
    changes = record_changes(run, config, checkpoint.step)
    if changes:
        progress.info(changes)
    cut_history(run, checkpoint.step)
    if mark_of(checkpoint).get("history") not in (None, history_digest(run)):
        progress.warn(f"{run.path / HISTORY} is not as it was at {checkpoint.name}: its figures were changed or lost.")
    update_pointers(run, config.train.best_metric)
    permanent = ChosenEpochs.parse(config.train.keep_epochs)
    per_epoch = max(1, round(checkpoint.step / checkpoint.epoch))
    # A kill may have come between the last checkpoint and this.
    rotate(run, config.train.keep_checkpoints, lambda step: permanent.at(step, per_epoch))


def check_unedited(run: Run, saved: Config) -> None:
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


def _check_step(run: Run, saved: Config, changed: Mapping[str, Any]) -> None:
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


def record_changes(run: Run, config: Config, step: int) -> str:
    """Write into the run what changes for the rest of it, from optimizer step `step` on; returns it in words."""
    saved = resolve("train", file=run.path / CONFIG).values
    changed: dict[str, dict[str, Any]] = {"train": {}, "eval": {}}
    noted = {}
    for section, names in (("train", SAME_SUMS[:3]), ("eval", SAME_SUMS[3:])):
        for name in names:
            old, new = getattr(getattr(saved, section), name), getattr(getattr(config, section), name)
            if new != old:
                changed[section][name] = new
                noted[name] = [old, new]
    if not noted:
        return ""
    sections = {section: getattr(saved, section).model_copy(update=new) for section, new in changed.items()}
    write_text(run.path / CONFIG, dump(saved.model_copy(update=sections)))
    manifest = run.manifest()
    run.write_manifest({**manifest, "changed": [*manifest.get("changed", []), {"step": step, **noted}]})
    words = ", ".join(f"{name} {new} instead of {old}" for name, (old, new) in noted.items())
    same = "Every step sums up the same images: the same loss (dropout, if any, draws other numbers)."
    return f"From here on {words}. {same if any(name in noted for name in STEP) else 'The loss is the same.'}"
