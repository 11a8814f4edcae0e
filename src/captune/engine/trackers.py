"""Where a training's figures go besides its run folder: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captune.core.errors import CaptuneError
from captune.core.files import write_text
from captune.core.logins import logged_in_to_wandb
from captune.core.runs import POINTERS, Run
from captune.core.tables import Table
from captune.data.images import ImageError, open_image

SIDE = 320
TRACKERS = Table(
    "tracker",
    {
        "tensorboard": "captune.engine.trackers:TensorBoard",
        "wandb": "captune.engine.trackers:WeightsAndBiases",
        "mlflow": "captune.engine.trackers:MLflow",
    },
    group="captune.trackers",
)


@dataclass(frozen=True)
class Sample:
    """A validation picture with what the model says, what people said, and the caption's own scores."""

    image: str
    caption: str
    references: Sequence[str]
    scores: Mapping[str, float] = field(default_factory=dict)
    question: str = ""

    @property
    def name(self) -> str:
        return Path(self.image).name

    @property
    def title(self) -> str:
        """Its name, with the question that was asked about it."""
        return f"{self.name}: {self.question}" if self.question else self.name

    def thumbnail(self) -> Image.Image | None:
        """The picture, small; None where it cannot be read any more."""
        try:
            picture = open_image(self.image)
        except ImageError:
            return None
        picture.thumbnail((SIDE, SIDE))
        return picture


class Tracker(TrainerCallback, ABC):
    """A place for figures, sample captions and checkpoints; `settings` is the run's whole configuration.

    A training that goes on continues the curves where its last checkpoint was.
    """

    def __init__(
        self, run: Run, samples: Callable[[], Sequence[Sample]], settings: Mapping[str, Any], resumed_at: int
    ) -> None:
        self.run, self.samples, self.settings, self.resumed_at = run, samples, settings, resumed_at

    @abstractmethod
    def figures(self, values: dict[str, float], step: int) -> None:
        """Figures by name: `training/loss`, `validation/cider`, ..."""

    @abstractmethod
    def sentences(self, samples: Sequence[Sample], step: int) -> None:
        """Sample captions of a validation."""

    @abstractmethod
    def close(self, best: Mapping[str, Path]) -> None:
        """The end; `best` are the checkpoints behind best-metric and best-loss."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        found = {}
        for name, value in (logs or {}).items():
            if value is None:
                continue  # it was no finite number
            group, _, rest = name.partition("_")
            found[f"validation/{rest}" if group == "eval" else f"training/{name}"] = value
        if found and state.is_world_process_zero:
            self.figures(found, state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.sentences(self.samples(), state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            there = {pointer: self.run.pointed(pointer) for pointer in POINTERS}
            self.close({pointer: self.run.checkpoints_folder / name for pointer, name in there.items() if name})


class TensorBoard(Tracker):
    """Scalars, pictures and captions under `RUN/tensorboard`."""

    def __init__(self, *args: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(*args)
        after = self.resumed_at + 1 if self.resumed_at else None
        self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=after)

    def figures(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def sentences(self, samples: Sequence[Sample], step: int) -> None:
        rows = ["| picture | caption | references |", "|---|---|---|"]
        rows += [f"| {s.title} | {s.caption} | {' · '.join(s.references)} |" for s in samples]
        self.writer.add_text("samples", "\n".join(rows), step)
        for sample in samples:
            picture = sample.thumbnail()
            if picture is not None:
                self.writer.add_image(f"samples/{sample.name}", np.asarray(picture), step, dataformats="HWC")
        self.writer.flush()

    def close(self, best: Mapping[str, Path]) -> None:
        self.writer.close()


class WeightsAndBiases(Tracker):
    """Figures, a table of pictures with captions and scores, and the two best checkpoints as artifacts.

    WANDB_PROJECT and WANDB_RUN_NAME name it. Without a login everything is kept under
    `RUN/wandb` for `wandb sync`.
    """

    ID = "wandb-run.txt"

    def __init__(self, *args: Any) -> None:
        try:
            import wandb
        except ImportError:
            raise CaptuneError("--trackers wandb needs wandb.", "pip install 'captune[wandb]'") from None
        super().__init__(*args)
        kept = self.run.path / self.ID
        known = kept.read_text(encoding="utf-8").strip() if kept.is_file() else secrets.token_hex(4)
        write_text(kept, known + "\n")
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if logged_in_to_wandb() else "offline")
        self.wandb = wandb
        self.session = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "captune",
            name=os.environ.get("WANDB_RUN_NAME") or self.run.path.resolve().name,
            id=known,
            resume="allow" if mode == "online" else None,
            dir=str(self.run.path),
            config=json.loads(json.dumps(self.settings, default=str)),
            mode=mode,
            reinit="finish_previous",  # a search cuts trainings short
            settings=wandb.Settings(silent=True),
        )

    def figures(self, values: dict[str, float], step: int) -> None:
        self.session.log({**values, "step": step})

    def sentences(self, samples: Sequence[Sample], step: int) -> None:
        names = sorted({name for sample in samples for name in sample.scores})
        table = self.wandb.Table(columns=["picture", "name", "caption", "references", *names])
        for sample in samples:
            picture = sample.thumbnail()
            shown = self.wandb.Image(picture) if picture is not None else None
            values = (sample.scores.get(name) for name in names)
            table.add_data(shown, sample.name, sample.caption, "\n".join(sample.references), *values)
        self.session.log({"samples": table, "step": step})

    def close(self, best: Mapping[str, Path]) -> None:
        for pointer, folder in best.items():
            artifact = self.wandb.Artifact(f"{self.session.id}-{pointer}", type="model", metadata={"from": folder.name})
            for file in sorted(folder.iterdir()):
                if file.suffix in (".json", ".safetensors", ".txt", ".model", ".jinja") and file.is_file():
                    artifact.add_file(str(file))
            self.session.log_artifact(artifact, aliases=[pointer])
        self.session.finish()


class MLflow(Tracker):
    """Figures, settings, samples and the best checkpoint's files in MLflow.

    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME name the place; without, `RUN/mlflow`.
    """

    ID = "mlflow-run.txt"

    def __init__(self, *args: Any) -> None:
        try:
            import mlflow
        except ImportError:
            raise CaptuneError("--trackers mlflow needs mlflow.", "pip install 'captune[mlflow]'") from None
        super().__init__(*args)
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (self.run.path.resolve() / "mlflow").as_uri()
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        kept = self.run.path / self.ID
        if kept.is_file():
            self.id = kept.read_text(encoding="utf-8").strip()
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "captune"
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        session = self.client.create_run(experiment, run_name=self.run.path.resolve().name)
        self.id = session.info.run_id
        write_text(kept, self.id + "\n")
        for section, values in self.settings.items():
            for option, value in values.items():
                self.client.log_param(self.id, f"{section}.{option}", str(value)[:500])

    def figures(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def sentences(self, samples: Sequence[Sample], step: int) -> None:
        rows = [
            {"picture": s.name, "caption": s.caption, "references": list(s.references), **s.scores} for s in samples
        ]
        self.client.log_text(self.id, json.dumps(rows, indent=2, ensure_ascii=False), f"samples/step-{step}.json")

    def close(self, best: Mapping[str, Path]) -> None:
        for pointer, folder in best.items():
            for file in sorted(folder.iterdir()):
                if file.suffix in (".json", ".safetensors", ".txt") and file.is_file():
                    self.client.log_artifact(self.id, str(file), pointer)
        self.client.set_terminated(self.id)
