"""Weights & Biases: figures over the training's steps, samples, and the two best checkpoints as artifacts."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, UsageError
from captune.core.machine import logged_in_to_wandb, wandb_refusal
from captune.core.runs import SEARCH_JOURNAL, Run
from captune.metrics import spec_of
from captune.training.trackers import BEST, CaptionSample, Tracker

MODES = ("online", "offline", "disabled", "shared")
OFFLINE = "offline"
MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".jinja")
# A network that is gone must not keep a finished training waiting for hours; what was not sent can be synced later.
FINISH_TIMEOUT = 900.0


class WeightsAndBiases(Tracker):
    """Figures, a table of images with captions and scores, and the two best checkpoints as artifacts.

    WANDB_PROJECT and WANDB_RUN_NAME name it. Without a login everything is kept under
    `RUN/wandb`, images and models too, with paths relative to RUN: the folder may be moved, and
    `cd RUN && wandb sync wandb/offline-run-*` sends it from wherever it is.
    """

    ID = "wandb-run.txt"
    LOGGED = "wandb-steps.json"

    @classmethod
    def check(cls, run: Run) -> None:
        """Installed, and either offline or logged in to a service that answers."""
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise CaptuneError("--trackers wandb needs wandb.", "pip install 'captune[wandb]'") from None
        mode = _mode()
        if mode not in MODES:
            raise UsageError(f"WANDB_MODE={mode} is no mode of Weights & Biases.", f"It has: {', '.join(MODES)}.")
        if mode in (OFFLINE, "disabled"):
            return
        later = "WANDB_MODE=offline keeps everything in the run folder, for wandb sync later."
        if not logged_in_to_wandb():
            raise CaptuneError(f"WANDB_MODE={mode} needs a login to Weights & Biases.", f"wandb login; or {later}")
        refusal = wandb_refusal()
        if refusal:
            raise CaptuneError(f"Weights & Biases cannot be used: {refusal}.", f"wandb login --relogin; or {later}")

    def __init__(self, *args: Any) -> None:
        import wandb

        super().__init__(*args)
        known, _ = self.saved_id(lambda: secrets.token_hex(4))
        mode: Any = _mode()
        self.wandb, self.offline = wandb, mode == OFFLINE
        self.before = os.environ.get("WANDB_DATA_DIR")
        if self.offline:
            # What artifacts are made of lies in the user's home otherwise.
            os.environ["WANDB_DATA_DIR"] = str(self.run.path.resolve() / "wandb" / "data")
        settings = wandb.Settings(silent=True)
        if hasattr(settings, "finish_timeout"):
            settings.finish_timeout = FINISH_TIMEOUT
        self.session: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "captune",
            name=_name(self.run.path.resolve()),
            id=known,
            resume=None if self.offline else "allow",
            dir=str(self.run.path),
            config=json.loads(
                json.dumps({**self.settings, "data_digest": self.manifest().get("data_digest")}, default=str)
            ),
            allow_val_change=True,
            mode=mode,
            reinit="finish_previous",  # a search cuts trainings short
            settings=settings,
        )
        if self.offline:
            # The session makes the artifact of a table itself, with absolute paths: they are mended where it logs it.
            movable = partial(_log_with_relative_paths, self.session.log_artifact, self.run.path.resolve())
            self.session.log_artifact = movable
        self.session.define_metric("step", hidden=True)
        self.session.define_metric("epoch", hidden=True)
        for group in ("training", "validation", BEST):
            self.session.define_metric(f"{group}/*", step_metric="step")
        self.session.define_metric("samples", step_metric="step")
        self.defined: set[str] = set()

    def figures(self, values: dict[str, float], step: int) -> None:
        for name in values.keys() - self.defined:
            if name.startswith("validation/"):
                goal = "max" if spec_of(name.rpartition("/")[2]).higher_is_better else "min"
                self.session.define_metric(name, step_metric="step", summary=goal)
            self.defined.add(name)
        epoch = {"epoch": values["training/epoch"]} if "training/epoch" in values else {}
        self.session.log({**values, **epoch, "step": step}, step=step)

    def sentences(self, samples: Sequence[CaptionSample], step: int) -> None:
        names = sorted({name for sample in samples for name in sample.scores})
        table = self.wandb.Table(columns=["picture", "name", "caption", "references", *names])
        images = []
        for sample in samples:
            image = sample.thumbnail()
            shown = self.wandb.Image(image) if image is not None else None
            values = (sample.scores.get(name) for name in names)
            table.add_data(shown, sample.name, sample.caption, "\n".join(sample.references), *values)
            if image is not None:
                images.append(self.wandb.Image(image, caption=f"{sample.title}: {sample.caption}"))
        self.session.log({"samples": table, "pictures": images, "step": step}, step=step)

    def close(self, best: Mapping[str, Path]) -> None:
        for name, value in self.best_so_far().items():
            self.session.summary[name] = value
        self.session.summary["ended"] = self.ended
        for pointer, folder in best.items():
            facts = json.loads(json.dumps(self.facts_of(pointer, folder), default=str))
            artifact = self.wandb.Artifact(f"{self.session.id}-{pointer}", type="model", metadata=facts)
            for file in sorted(folder.iterdir()):
                if file.suffix in MODEL_FILES and file.is_file():
                    artifact.add_file(str(self._snapshot(file)), name=file.name, policy="immutable")
            self.session.log_artifact(artifact, aliases=[pointer])
        self.session.finish(exit_code=0 if self.success else 1)
        if self.offline:
            if self.before is None:
                os.environ.pop("WANDB_DATA_DIR", None)
            else:
                os.environ["WANDB_DATA_DIR"] = self.before

    def _snapshot(self, file: Path) -> Path:
        """The file itself; of an offline run a link to it beside what will be synced, which outlives the checkpoint."""
        if not self.offline:
            return file.resolve()
        target = self.run.path.resolve() / "wandb" / "models" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with suppress(OSError):  # a file system without hard links
            os.link(file, target)
        if not target.exists():
            shutil.copyfile(file, target)
        return target


def _log_with_relative_paths(log: Callable[..., Any], root: Path, artifact: Any, **how: Any) -> Any:
    """Log an artifact whose files lie under `root` with paths relative to it."""
    for entry in artifact.manifest.entries.values():
        if entry.local_path and Path(entry.local_path).is_relative_to(root):
            entry.local_path = str(Path(entry.local_path).relative_to(root))
    return log(artifact, **how)


def _name(run: Path) -> str:
    """The name of a run there; the trials of a search, which lie beside its journal, have names of their own."""
    given = os.environ.get("WANDB_RUN_NAME")
    if not given:
        return run.name
    return f"{given}-{run.name}" if (run.parent / SEARCH_JOURNAL).exists() else given


def _mode() -> str:
    return os.environ.get("WANDB_MODE") or ("online" if logged_in_to_wandb() else OFFLINE)
