"""`captune push`: a run, checkpoint or folder to the Hugging Face Hub, with its card."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from captune.core.config import resolve
from captune.core.environment import heed_hub_token
from captune.core.errors import CaptuneError, UsageError, first_line
from captune.core.files import atomic_folder, disk_error, read_json, read_yaml, scratch_folder, write_text
from captune.core.model_names import holds_adapters_alone, hub_name, local_folder
from captune.core.progress import SILENT, Progress
from captune.core.runs import CONFIG, EVAL, Run, checkpoint_damage
from captune.evaluation.results import read_captions
from captune.export.card import CardFacts, card
from captune.models.loading.errors import damaged_error

# What belongs to a training, not to a model.
LEFT_BEHIND = frozenset(
    (
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "training_args.bin",
        "complete.json",
        "README.md",
    )
)
SAMPLES = 5
_NO_LOGIN = "There is no login for the Hugging Face Hub."
_LOGIN = "Log in with a token that may write: hf auth login, or set HF_TOKEN (or HUGGINGFACE_TOKEN)."
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def check_repo(repo: str) -> None:
    """Raise `UsageError` for what cannot be the name of a repository."""
    if not repo:
        raise UsageError("No repository of the Hub was named.", "captune push MODEL user/name, or set HF_REPO_NAME.")
    if not _REPO.fullmatch(repo):
        raise UsageError(f"'{repo}' is not a repository of the Hub.", "Give it as user/name or organisation/name.")


@contextmanager
def _hub_errors(refused: str, unreachable: str, hint: str) -> Iterator[None]:
    """The Hub's errors as `CaptuneError`, with a `hint` for all but a missing or wrong login."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    # The Hub's client uses httpx or its successor; both raise this for a broken connection.
    broken: Any = next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    try:
        yield
    except LocalTokenNotFoundError:
        raise CaptuneError(_NO_LOGIN, _LOGIN) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        login = status in (401, 403)
        raise CaptuneError(f"{refused} ({status}): {first_line(error)}", _LOGIN if login else hint) from None
    except (OSError, ValueError, broken) as error:
        raise CaptuneError(f"{unreachable}: {first_line(error)}", hint) from None


def check_login() -> None:
    """Raise `CaptuneError` where nobody is logged in to the Hub, or the Hub does not answer or take the login."""
    from huggingface_hub import HfApi, get_token

    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGINGFACE_TOKEN") or get_token()
    if not token:
        raise CaptuneError(_NO_LOGIN, _LOGIN)
    refused, unreachable = "The Hugging Face Hub refused the login", "The Hugging Face Hub cannot be reached"
    with _hub_errors(refused, unreachable, "Check the network, or push later: captune push."):
        HfApi(token=token).whoami()


def write_folder(model: Path, folder: Path, facts: CardFacts) -> list[str]:
    """Copy a model without its training's state, write its card beside it; returns the names of all files.

    Raises `CaptuneError` where a file cannot be copied.
    """
    for file in sorted(model.rglob("*")):
        target = folder / file.relative_to(model)
        if file.is_file() and file.name not in LEFT_BEHIND and not file.name.startswith("rng_state"):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            except OSError as error:
                raise disk_error(error, target) from error
    write_text(folder / "README.md", card(facts))
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def upload(folder: Path, repo: str, *, private: bool, token: str | None, message: str) -> str:
    """Create the repository where it is not there, upload the folder as one commit; returns its address."""
    from huggingface_hub import HfApi

    api, hint = HfApi(token=token), "Check the network and try again; the folder of --dry-run can be pushed later."
    with _hub_errors(f"The Hub refused {repo}", f"{repo} could not be uploaded", hint):
        address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=message)
    return str(address)


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
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Pushed:
    """Upload a model with a card filled from its run: scores with intervals, settings, samples, licences.

    `model` is a run (its best checkpoint), `runs/x@last`, or a folder; `repo` is user/name
    (default: HF_REPO_NAME). With `dry_run` the folder is written to `out` and nothing is sent.
    Raises `CaptuneError` where there is no login or the Hub refuses.
    """
    environment = os.environ if environment is None else environment
    values = resolve("push", file=config, environment=environment, flags=options, sets=sets).values.push
    repo = repo or environment.get("HF_REPO_NAME") or ""
    check_repo(repo)
    folder = local_folder(model)
    if folder is None:
        raise CaptuneError(f"{model} is not here.", "Give a run, a checkpoint of a run, or a folder with a model.")
    if holds_adapters_alone(folder):
        raise CaptuneError(
            f"{model} holds adapters alone (--save-adapter-only), which a folder on the Hub cannot caption with.",
            "Publish a run whose checkpoints hold the whole model; peft publishes adapters: PeftModel.push_to_hub.",
        )
    damage = checkpoint_damage(folder, model_only=True)
    if damage:
        raise damaged_error(model, damage)
    facts = card_facts(model, folder, repo, license=values.license, data_license=values.data_license)
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
            address = upload(made, repo, private=values.private, token=token, message=message)
    return Pushed(repo, address, "", tuple(files))


def card_facts(model: str, folder: Path, repo: str, *, license: str, data_license: str) -> CardFacts:
    """What is known of a model: from the run around it, its evaluation, its own files."""
    from captune.models.backbone import Backbone

    saved = Backbone.read_card(folder)
    run = _run_of(folder)
    generation, prompt = dict(saved.get("generation", {})), saved.get("prompt", "")
    encoder = not _json_or_empty(folder / "config.json").get("use_decoder_only_language_model", True)
    own = CardFacts(repo, saved.get("family", ""), prompt=prompt, generation=generation, encoder=encoder)
    own = replace(own, license=license, data_license=data_license)
    if run is None:
        return own
    manifest = run.manifest()
    base = str(manifest.get("model", ""))
    measured = _json_or_empty(run.path / EVAL)
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
    mark = _json_or_empty(folder / "complete.json")
    return replace(
        own,
        family=own.family or manifest.get("family", ""),
        base_model=base,
        license=license or _license_of(base),
        data=Path(str(manifest.get("data", ""))).name,
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
    )


def _json_or_empty(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


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
    from captune.models import families

    return next((known.license for family in families() for known in family.checkpoints if known.name == base), "")


def _options(run: Run) -> dict[str, Any]:
    config = read_yaml(run.path / CONFIG)
    config = config if isinstance(config, dict) else {}
    return {section: config[section] for section in ("data", "model", "train", "generation") if section in config}
