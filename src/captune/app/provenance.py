"""What a run began with - model, data, versions - and whether it goes on with the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captune.core.errors import UsageError
from captune.core.options import TrainConfig
from captune.core.progress import Progress
from captune.core.records import ImageRecord
from captune.core.runs import Run
from captune.data.fingerprints import difference, read_contents, split_fingerprint
from captune.data.prepared import PreparedData

# Those that the numbers of a training come from.
_PACKAGES = (
    *("python", "captune", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "pillow", "numpy"),
)
_NEW_RUN = "or start a new run with another --out."


def model_facts(model: str, config: TrainConfig) -> dict[str, Any]:
    """What the manifest holds of the model that a training begins with.

    Adapters go on the same weights after every stop: of a folder, those are known by a digest.
    """
    from captune.core.model_names import is_new, is_pair
    from captune.engine.identity import identity_of, revision_of

    digest = None
    if config.model.lora is not None and not is_new(model) and not is_pair(model):
        found = identity_of(model)
        digest = found.digest if found else None
    return {"model": model, "model_revision": revision_of(model), "model_digest": digest}


def data_facts(data: PreparedData, splits: Mapping[str, Sequence[ImageRecord]]) -> dict[str, Any]:
    """What the manifest holds of the data; raises `CaptuneError` where an image is not there."""
    return {
        "data": str(data.folder.resolve()),
        "data_digest": data.digest,
        "data_splits": {name: split_fingerprint(records) for name, records in splits.items()},
    }


def check_same_model(run: Run, model: str, config: TrainConfig) -> None:
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
    from captune.engine.versions import versions

    then = run.manifest().get("versions", {})
    now = versions()
    return {name: [then[name], now[name]] for name in _PACKAGES if name in then and then[name] != now[name]}


def keep_session(run: Run, step: int, data: Mapping[str, Any], damaged: Mapping[str, str], progress: Progress) -> None:
    """Write into the manifest what is otherwise from optimizer step `step` on, and warn of it.

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
