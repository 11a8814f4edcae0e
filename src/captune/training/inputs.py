"""What a training begins with, read and checked before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, UsageError
from captune.core.options import PARTS
from captune.core.options.verbs import Config
from captune.core.progress import Progress
from captune.core.records import ImageRecord
from captune.core.runs import Checkpoint, Run
from captune.datasets.prepared import TRAIN, PreparedData, read_prepared, read_split
from captune.export.push import check_login, check_repo
from captune.inference.processes import Processes
from captune.metrics.measure import ANSWERS, measure, metric_names, metrics_for
from captune.training.loop.checkpoints import last_whole
from captune.training.resuming import check_same_data, check_same_model, check_trained, data_facts
from captune.training.selection import SINGLE, WEIGHTS
from captune.training.trackers import TRACKERS


@dataclass(frozen=True)
class TrainingInputs:
    """What a training begins with, checked: `config` is complete, `checkpoint` is where it goes on (None: the start).

    `damaged` says what is wrong with newer checkpoints, `facts` is what the manifest holds of the data.
    """

    run: Run
    model: str
    config: Config
    data: PreparedData
    training: list[ImageRecord]
    validation: list[ImageRecord]
    checkpoint: Checkpoint | None
    damaged: Mapping[str, str]
    facts: Mapping[str, Any]
    processes: Processes
    progress: Progress

    @property
    def new(self) -> bool:
        """Whether the model begins from scratch."""
        return self.model.startswith("new:")


def read_inputs(
    run: Run, data: Path, model: str, config: Config, processes: Processes, progress: Progress
) -> TrainingInputs:
    """Read the data and the run; raises `CaptuneError` for all that can be refused before a model is loaded."""
    part_rates(config.train.part_learning_rates)
    check_shardable(config, processes)
    check_trackers(config, run)
    prepared = read_prepared(data)
    outside = config.tables.allow_outside
    splits = {name: read_split(data, name, allow_outside=outside) for name in (TRAIN, "val")}
    training, validation = splits.values()
    config = with_defaults(config, training)
    check_best_metric(config, progress)
    checkpoint, damaged = last_whole(run)
    if Run.is_run(run.path):
        check_same_model(run, model, config)
        facts = check_same_data(run, prepared, splits, progress)
        check_trained(run, checkpoint, damaged)
    else:
        facts = data_facts(prepared, splits)
    if checkpoint is not None and checkpoint.step == 0:
        checkpoint = None  # the untrained start holds no state to resume from; begin again
    return TrainingInputs(
        run, model, config, prepared, training, validation, checkpoint, damaged, facts, processes, progress
    )


def part_rates(pairs: Sequence[str]) -> dict[str, float]:
    """Learning rates by part, of `part=rate`; raises `UsageError` for anything else."""
    rates = {}
    for pair in pairs:
        part, _, rate = pair.partition("=")
        try:
            rates[part] = float(rate)
        except ValueError:
            rates[part] = -1.0
        if part not in PARTS or not rates[part] >= 0:
            raise UsageError(
                f"--part-learning-rates: '{pair}' is not understood.",
                f"For example: --part-learning-rates vision=1e-6; parts: {', '.join(PARTS)}.",
            )
    return rates


def with_defaults(config: Config, training: Sequence[ImageRecord]) -> Config:
    """The configuration with what `auto` stands for in this training; answers are measured as answers."""
    learn = config.train
    questions = any(record.question for record in training)
    if questions and learn.stage == "scst":
        raise UsageError("scst rewards captions, and this data has questions.", "Leave out --stage scst.")
    rule: str = learn.best_metric
    metrics = metrics_for(questions, learn.validation_metrics)
    if rule == "auto":
        suited = {"vqa-accuracy": questions and ANSWERS in metrics, "cider": learn.stage == "scst"}
        measured = metric_names(metrics)
        rule = next((r for r, suits in suited.items() if suits and r.replace("-", "_") in measured), "meteor-centric")
    changed = {"best_metric": rule, "validation_metrics": metrics}
    return config.model_copy(update={"train": learn.model_copy(update=changed)})


def check_best_metric(config: Config, progress: Progress) -> None:
    """What a best checkpoint is chosen by must be among the scores of a validation."""
    learn = config.train
    metric_names(learn.validation_metrics)
    rules = {"--best-metric": learn.best_metric}
    if learn.early_stopping_patience and learn.early_stopping_metric != "auto":
        rules["--early-stopping-metric"] = learn.early_stopping_metric
    if set(rules.values()) == {"loss"} or not learn.validation_images:
        return
    tried = measure({"a": "a dog"}, {"a": ["a dog"]}, learn.validation_metrics, resamples=0, progress=progress)
    for flag, rule in rules.items():
        metric = SINGLE.get(rule)
        if rule == "loss" or metric in tried.scores or (not metric and any(name in tried.scores for name in WEIGHTS)):
            continue
        others = [rule for rule, name in SINGLE.items() if name in tried.scores or rule == "loss"]
        why = tried.settings.get("left_out", {}).get(metric, "It is not among --validation-metrics.")
        raise CaptuneError(
            f"Validations will not measure {metric or 'any of ' + ', '.join(WEIGHTS)}, which {flag} "
            f"{rule} asks for. {why}",
            f"Choose another {flag} ({', '.join(others)}), or other --validation-metrics.",
        )


def check_trackers(config: Config, run: Run) -> None:
    """Trackers, and a repository of the Hub, that could not be used are refused before anything begins."""
    for name in config.train.trackers:
        # One of another package may be older than the check.
        if name != "none" and (check := getattr(TRACKERS[name], "check", None)):
            check(run)
    if config.train.push_to:
        check_repo(config.train.push_to)
        check_login()


def check_shardable(config: Config, processes: Processes) -> None:
    """Weights are shared out among several processes, in the number type they learn in."""
    if config.train.shard and processes.count == 1:
        raise UsageError(
            "--shard shares the model out among processes, and there is one.",
            "Start several: torchrun --nproc-per-node 2 -m captune train …; or leave it out.",
        )
    if config.train.shard and config.run_on.quantize != "none":
        raise UsageError("Quantized weights cannot be shared out.", "Leave out --shard or --quantize.")
