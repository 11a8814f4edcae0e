"""`captune push`: a run, a checkpoint or a folder to the Hugging Face Hub, with its card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.app.evaluation import read_captions
from captune.core.config import resolve
from captune.core.environment import heed_hub_token
from captune.core.errors import CaptuneError
from captune.core.files import read_json, read_yaml
from captune.core.folders import atomic_folder
from captune.core.model_names import hub_name
from captune.core.options import PushConfig
from captune.core.progress import SILENT, Progress
from captune.core.runs import CONFIG, EVAL, Run, checkpoint_damage
from captune.core.scratch import scratch_folder
from captune.engine.load_errors import damaged_error
from captune.exporters.card import CardFacts
from captune.exporters.hub import check_repo, upload, write_folder

SAMPLES = 5


@dataclass(frozen=True)
class Pushed:
    """Where a model went: `address` on the Hub (empty after a dry run), `folder` of a dry run, its files."""

    repo: str
    address: str
    folder: str
    files: tuple[str, ...]


def push(
    model: str,
    repo: str | None = None,
    *,
    dry_run: bool = False,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Pushed:
    """Upload a model with a card filled from its run: scores with intervals, settings, samples, licences.

    `model` is a run (its best checkpoint), `runs/x@last`, or a folder; `repo` is user/name
    (default: HF_REPO_NAME). With `dry_run` the folder is written to `out` and nothing is sent.
    Raises `CaptuneError` where there is no login or the Hub refuses.
    """
    from captune.core.model_names import local_folder

    environment = os.environ if environment is None else environment
    asked = resolve(PushConfig, environment=environment, flags=options).values.push
    repo = repo or environment.get("HF_REPO_NAME") or ""
    check_repo(repo)
    folder = local_folder(model)
    if folder is None:
        raise CaptuneError(f"{model} is not here.", "Give a run, a checkpoint of a run, or a folder with a model.")
    damage = checkpoint_damage(folder, model_only=True)
    if damage:
        raise damaged_error(model, damage)
    facts = card_facts(model, folder, repo, license=asked.license, data_license=asked.data_license)
    if dry_run:
        target = Path(out or f"{repo.rpartition('/')[2]}-hub")
        with atomic_folder(target) as stage:
            files = write_folder(folder, stage, facts)
        return Pushed(repo, "", str(target), tuple(files))
    with scratch_folder() as made:
        files = write_folder(folder, made, facts)
        with progress.task(f"Uploading {len(files)} files to {repo}"):
            known = dict(environment)
            heed_hub_token(known)
            token = known.get("HF_TOKEN") or None
            message = f"captune: {facts.checkpoint or folder.name}"
            address = upload(made, repo, private=asked.private, token=token, message=message)
    return Pushed(repo, address, "", tuple(files))


def card_facts(model: str, folder: Path, repo: str, *, license: str, data_license: str) -> CardFacts:
    """What is known of a model: from the run around it, its evaluation, its own files."""
    from captune.models.backbone import Backbone

    saved = Backbone.read_card(folder)
    run = _run_of(folder)
    generation, prompt = dict(saved.get("generation", {})), saved.get("prompt", "")
    encoder = not _config_of(folder).get("use_decoder_only_language_model", True)
    if run is None:
        return CardFacts(
            repo,
            saved.get("family", ""),
            license=license,
            data_license=data_license,
            prompt=prompt,
            generation=generation,
            encoder=encoder,
        )
    manifest = run.manifest()
    base = str(manifest.get("model", ""))
    measured = read_json(run.path / EVAL) if (run.path / EVAL).is_file() else {}
    models: dict[str, dict[str, Any]] = measured.get("models", {})
    name, report = next(iter(models.items()), ("", dict[str, Any]()))
    # An evaluation of another checkpoint says nothing about this one.
    if not _same_checkpoint(name, run, folder):
        measured, report = {}, {}
    samples = []
    settings: dict[str, Any] = report.get("settings", {})
    if report:
        generation = dict(settings.get("generation", generation))
        first, records, captions = read_captions(run.path)
        samples = [(record.references[:3], captions[first][record.id].text) for record in records[:SAMPLES]]
    mark = read_json(folder / "complete.json") if (folder / "complete.json").is_file() else {}
    return CardFacts(
        repo=repo,
        family=saved.get("family") or manifest.get("family", ""),
        base_model=base,
        license=license or _license_of(base),
        data=Path(str(manifest.get("data", ""))).name,
        data_license=data_license,
        parameters=manifest.get("parameters", 0),
        trained_parameters=manifest.get("trained_parameters", 0),
        epochs=mark.get("epoch", 0.0),
        steps=mark.get("step", 0),
        checkpoint=folder.name,
        options=_options(run),
        split=measured.get("split", ""),
        images=measured.get("images", 0),
        scores=report.get("scores", {}),
        intervals=report.get("intervals", {}),
        samples=samples,
        versions=manifest.get("versions", {}),
        prompt=generation.get("prompt") or prompt,
        generation=generation,
        precision=settings.get("precision", ""),
        encoder=encoder,
    )


def _config_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json") if (folder / "config.json").is_file() else {}


def _run_of(folder: Path) -> Run | None:
    """The run that a checkpoint lies in."""
    run = folder.resolve().parent.parent
    return Run(run) if Run.is_run(run) else None


def _same_checkpoint(name: str, run: Run, folder: Path) -> bool:
    if not name:
        return False
    which = name.rpartition("@")[2] if "@" in name else "best"
    try:
        return run.checkpoint(which).path.resolve() == folder.resolve()
    except CaptuneError:
        return False


def _license_of(base: str) -> str:
    base, _ = hub_name(base)
    from captune.app.models import families

    return next((known.license for family in families() for known in family.checkpoints if known.name == base), "")


def _options(run: Run) -> dict[str, Any]:
    config = read_yaml(run.path / CONFIG)
    config = config if isinstance(config, dict) else {}
    return {section: config[section] for section in ("data", "model", "train", "generation") if section in config}
