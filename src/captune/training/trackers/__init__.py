"""Trackers: TensorBoard, MLflow and what they share; a tracker that fails is a warning."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captune.core.errors import CaptuneError, ImageError, first_line
from captune.core.files import read_json, write_json, write_text
from captune.core.progress import Progress
from captune.core.runs import HISTORY, POINTERS, Ending, Run
from captune.core.tables import Table
from captune.images.open import open_image
from captune.training.selection import best_scores, choose

SUCCESSES = ("all-epochs", "max-steps", "early-stopping", "scst-guard")


def _forwarded(event: str) -> Callable[..., None]:
    """A method that passes an event of the training on to the tracker."""

    def forward(self: GuardedTracker, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(lambda: getattr(self.tracker, event)(args, state, control, **kwargs))

    return forward


class GuardedTracker(TrainerCallback):
    """Passes events on to a tracker until one fails: then it warns once and calls the tracker no more.

    `begin` makes the tracker; `end` closes it, also where the training failed.
    """

    def __init__(self, name: str, run: Run, begin: Callable[[], Any], progress: Progress) -> None:
        self.name, self.run, self.progress = name, run, progress
        self.tracker: Any = None
        self.lost = False
        self.tracker = self._safely(begin)

    def _safely(self, act: Callable[[], Any]) -> Any:
        if self.lost:
            return None
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - a tracker's failure does not end the training
            self.lost = True
            self.progress.warn(
                f"The tracker {self.name} failed and gets nothing more: {first_line(error, with_type=True)}. "
                f"Training goes on; all figures are in {self.run.path / HISTORY}."
            )
            return None

    def end(self, ending: Ending, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Close the tracker and give it the reason why the training ended."""
        if not self.lost:
            self.tracker.ended, self.tracker.success = ending.text, ending.reason in SUCCESSES
            self._safely(lambda: self.tracker.on_train_end(args, state, control))
        self.lost = True

    on_train_begin = _forwarded("on_train_begin")
    on_epoch_end = _forwarded("on_epoch_end")
    on_step_end = _forwarded("on_step_end")
    on_log = _forwarded("on_log")
    on_evaluate = _forwarded("on_evaluate")
    on_save = _forwarded("on_save")


SIDE = 320
BEST = "best"
TRACKERS = Table(
    "tracker",
    {
        "tensorboard": "captune.training.trackers:TensorBoard",
        "wandb": "captune.training.trackers.wandb:WeightsAndBiases",
        "mlflow": "captune.training.trackers:MLflow",
    },
    group="captune.trackers",
)


@dataclass(frozen=True)
class CaptionSample:
    """A validation image with its caption, its references, and the caption's own scores."""

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
        """The image's name, with the question about it."""
        return f"{self.name}: {self.question}" if self.question else self.name

    def thumbnail(self) -> Image.Image | None:
        """The image, small; None where it cannot be read any more."""
        try:
            image = open_image(self.image)
        except ImageError:
            return None
        image.thumbnail((SIDE, SIDE))
        return image


class Tracker(TrainerCallback, ABC):
    """Receives figures, sample captions and checkpoints; `settings` is the run's whole configuration.

    A training that goes on continues the curves at its last checkpoint: what was logged before
    it stopped, as the file `LOGGED` of the run says, is not logged again. `ended` says why the training
    ended and `success` whether it came to its end, once that is known.
    """

    LOGGED: ClassVar[str] = ""
    ID: ClassVar[str] = ""

    @classmethod
    def check(cls, run: Run) -> None:
        """Raise `CaptuneError` for what is missing before a training begins; writes nothing into `run`."""

    def __init__(
        self, run: Run, samples: Callable[[], Sequence[CaptionSample]], settings: Mapping[str, Any], resumed_at: int
    ) -> None:
        self.run, self.samples, self.settings, self.resumed_at = run, samples, settings, resumed_at
        self.ended, self.success = "", True
        file = run.path / self.LOGGED
        self.logged: dict[str, int] = read_json(file) if self.LOGGED and resumed_at and file.is_file() else {}
        self.earlier = dict(self.logged)

    def saved_id(self, new: Callable[[], str]) -> tuple[str, bool]:
        """The tracker's own id of this run, kept in the run's file `ID`; and whether it is `new`."""
        file = self.run.path / self.ID
        if file.is_file():
            return file.read_text(encoding="utf-8").strip(), False
        id = new()
        write_text(file, id + "\n")
        return id, True

    @abstractmethod
    def figures(self, values: dict[str, float], step: int) -> None:
        """Figures by name: `training/loss`, `validation/cider`, ..."""

    @abstractmethod
    def sentences(self, samples: Sequence[CaptionSample], step: int) -> None:
        """Sample captions of a validation."""

    @abstractmethod
    def close(self, best: Mapping[str, Path]) -> None:
        """The end; `best` has the checkpoints of best-metric and best-loss."""

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        values = {
            f"validation/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"training/{name}": value
            for name, value in (logs or {}).items()
            if value is not None  # None: it was no finite number
        }
        group = "validation" if any(name.startswith("validation/") for name in values) else "training"
        if values and state.is_world_process_zero and self._is_new(group, state.global_step):
            self.figures(values, state.global_step)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero and self._is_new("samples", state.global_step):
            self.figures(self.best_so_far(), state.global_step)
            self.sentences(self.samples(), state.global_step)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            there = {pointer: self.run.pointed(pointer) for pointer in POINTERS}
            self.close({pointer: self.run.checkpoints_folder / name for pointer, name in there.items() if name})

    def manifest(self) -> dict[str, Any]:
        """The run's, or nothing."""
        return self.run.manifest() if Run.is_run(self.run.path) else {}

    def rule(self) -> str:
        """The rule that chooses best-metric."""
        return str(self.settings.get("train", {}).get("best_metric") or "loss")

    def best_so_far(self) -> dict[str, float]:
        """The best of each score of the validations until now, and the step and epoch that the run's rule chooses."""
        history = self.run.history()
        scores = {f"{BEST}/{name}": best.value for name, best in best_scores(history).items()}
        choice = choose(history, self.rule())
        return {**scores, **({f"{BEST}/step": choice.step, f"{BEST}/epoch": choice.epoch} if choice else {})}

    def facts_of(self, pointer: str, folder: Path) -> dict[str, Any]:
        """What a best checkpoint is: where from, chosen by which rule, its scores, the data it learned from."""
        rule = self.rule() if pointer == POINTERS[0] else "loss"
        step = int(folder.name.rpartition("-")[2])
        choice = choose(self.run.history(), rule, {step})
        about = self.manifest()
        return {
            "from": folder.name,
            "step": step,
            "epoch": choice.epoch if choice else None,
            "rule": choice.rule if choice else rule,
            "why": choice.why if choice else "",
            "scores": choice.scores if choice else {},
            **{key: about.get(key) for key in ("data", "data_digest", "model", "seed")},
        }

    def _is_new(self, group: str, step: int) -> bool:
        """Whether a step was not logged before the training stopped; then it is marked as logged."""
        if step <= self.earlier.get(group, -1):
            return False
        self.logged[group] = step
        if self.LOGGED:
            write_json(self.run.path / self.LOGGED, self.logged)
        return True


class TensorBoard(Tracker):
    """Scalars, images and captions under `RUN/tensorboard`."""

    @classmethod
    def check(cls, run: Run) -> None:
        """Installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401
        except ImportError:
            raise CaptuneError(
                "--trackers tensorboard needs tensorboard.", "pip install tensorboard; or --trackers none"
            ) from None

    def __init__(self, *args: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(*args)
        after = self.resumed_at + 1 if self.resumed_at else None
        self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=after)

    def figures(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def sentences(self, samples: Sequence[CaptionSample], step: int) -> None:
        rows = ["| image | caption | references |", "|---|---|---|"]
        rows += [f"| {s.title} | {s.caption} | {' · '.join(s.references)} |" for s in samples]
        self.writer.add_text("samples", "\n".join(rows), step)
        for sample in samples:
            image = sample.thumbnail()
            if image is not None:
                self.writer.add_image(f"samples/{sample.name}", np.asarray(image), step, dataformats="HWC")
        self.writer.flush()

    def close(self, best: Mapping[str, Path]) -> None:
        self.writer.close()


class MLflow(Tracker):
    """Figures, settings, samples and the best checkpoint's files in MLflow.

    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME name the server and the experiment; without them, `RUN/mlflow`.
    """

    ID = "mlflow-run.txt"
    LOGGED = "mlflow-steps.json"

    @classmethod
    def check(cls, run: Run) -> None:
        """Installed, and a server that answers where one is named."""
        try:
            import mlflow
        except ImportError:
            raise CaptuneError("--trackers mlflow needs mlflow.", "pip install 'captune[mlflow]'") from None
        cls._environment()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            return
        try:
            mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
            raise CaptuneError(
                f"MLflow at {uri} cannot be used: {first_line(error)[:300]}",
                "Correct MLFLOW_TRACKING_URI, or unset it: then everything is kept in the run folder.",
            ) from None

    @staticmethod
    def _environment() -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # A server that does not answer must not delay a training for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

    def __init__(self, *args: Any) -> None:
        import mlflow

        super().__init__(*args)
        self._environment()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (self.run.path.resolve() / "mlflow").as_uri()
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        self.id, new = self.saved_id(self._new_run)
        if not new:
            self.client.update_run(self.id, status="RUNNING")
            return
        for section, values in self.settings.items():
            for option, value in values.items():
                self.client.log_param(self.id, f"{section}.{option}", str(value)[:500])

    def _new_run(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "captune"
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        session = self.client.create_run(experiment, run_name=self.run.path.resolve().name)
        return str(session.info.run_id)

    def figures(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def sentences(self, samples: Sequence[CaptionSample], step: int) -> None:
        rows = [
            {"picture": s.name, "caption": s.caption, "references": list(s.references), **s.scores} for s in samples
        ]
        self.client.log_text(self.id, json.dumps(rows, indent=2, ensure_ascii=False), f"samples/step-{step}.json")

    def close(self, best: Mapping[str, Path]) -> None:
        for pointer, folder in best.items():
            for file in sorted(folder.iterdir()):
                if file.suffix in (".json", ".safetensors", ".txt") and file.is_file():
                    self.client.log_artifact(self.id, str(file), pointer)
            self.client.log_dict(self.id, self.facts_of(pointer, folder), f"{pointer}/captune-choice.json")
        self.client.set_tag(self.id, "ended", self.ended)
        self.client.set_terminated(self.id, "FINISHED" if self.success else "FAILED")
