"""`captune evaluate`: models against the references of a split, side by side."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from captune.core.config import Resolved, resolve
from captune.core.endpoints import is_endpoint
from captune.core.errors import CaptuneError
from captune.core.files import write_json
from captune.core.options.verbs import Config
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption, ImageRecord
from captune.core.runs import SPLITS, Run
from captune.datasets.prepared import TRAIN, read_prepared, read_split, sample_records
from captune.evaluation.report import write_report
from captune.evaluation.report.data import delete_attention_sheets, draw_attention_sheets
from captune.evaluation.results import Evaluation, write_evaluation
from captune.inference.captioning import CaptioningModel, ConcurrentModel, caption_records
from captune.inference.loading import backbone_of, check_name, load_model
from captune.inference.processes import Processes
from captune.metrics.corpus import MetricContext, ReferenceLikelihood, joined, metric_context
from captune.metrics.ptb_tokenizer import tokenize
from captune.metrics.report import MetricReport
from captune.metrics.significance import compare_with_first


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str = "test",
    against: str | Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Evaluation:
    """Caption a split with `model` and every model `against` it, and measure all on the same references.

    Writes `eval_bleu.json` (all models, differences, settings), `eval_per_image.jsonl`
    and `splits.json` into `out`; without `out`, into the run if `model` is one.
    Options are those of `captune evaluate --help`. Processes that a launcher started together
    share the images out; the first one writes, and all return the same.
    """
    processes = Processes.join(options.get("device"))
    progress = progress if processes.first else SILENT
    resolved = resolve("evaluate", preset=preset, file=config, environment=environment, flags=options, sets=sets)
    from captune.metrics.measure import metric_names, metrics_for

    metric_names(resolved.values.measure.metrics)
    measured = resolved.values.eval
    records = _records(data, split, resolved.values)
    models = [model, *([against] if isinstance(against, str) else against)]
    names = list(dict.fromkeys(name for each in models for name in _expanded(each)))
    _check(names, resolved)
    context = metric_context(
        resolved.values.measure,
        pictures={record.id: record.image for record in records},
        device=resolved.values.run_on.device,
        training=_training(data, split, resolved.values.tables.allow_outside),
    )
    metrics = metrics_for(any(record.question for record in records), resolved.values.measure.metrics)
    reports: dict[str, MetricReport] = {}
    captions: dict[str, dict[str, Caption]] = {}
    folder = Path(out) if out else (Path(model) if Run.is_run(model) else None)
    if folder is not None and processes.first:
        delete_attention_sheets(folder)
    for name in names:
        sheets = None if reports else folder
        reports[name], captions[name] = _measure(name, records, resolved, metrics, context, sheets, progress, processes)
    comparisons = compare_with_first(reports, resolved.values.measure.resamples)
    evaluation = Evaluation(reports, captions, tuple(records), comparisons, folder, measured.shown_captions)
    if folder is not None and processes.first:
        prepared = read_prepared(data)
        write_evaluation(evaluation, folder, data=str(Path(data).resolve()), data_digest=prepared.digest, split=split)
        if not (folder / SPLITS).is_file():
            write_json(folder / SPLITS, prepared.summary)
        if measured.draw_report:
            write_report(folder, progress=progress)
    processes.wait()
    return evaluation


def _check(names: Sequence[str], resolved: Resolved) -> None:
    """Raise before any work for a model that is not there, or that cannot do what the options ask for."""
    for name in names:
        check_name(name)
        if is_endpoint(name):  # others are large: what they cannot do is known once they are loaded
            model = load_model(name, resolved.values)
            model.codec.under(resolved.with_defaults("generation", dict(model.generation)).generation)
            if resolved.values.eval.perplexity and resolved.sources.get("eval.perplexity", "").startswith("--"):
                backbone_of(model, name, "Perplexity")


def _records(data: str | os.PathLike[str], split: str, values: Config) -> list[ImageRecord]:
    """What is measured on: images of a split that have references."""
    records = [
        record for record in read_split(data, split, allow_outside=values.tables.allow_outside) if record.references
    ]
    if not records:
        raise CaptuneError(f"The split '{split}' of {data} has no references.", "Choose another --split.")
    records = sample_records(records, values.eval.limit_images)
    if values.eval.limit_references:
        records = [replace(each, references=each.references[: values.eval.limit_references]) for each in records]
    return records


def _training(data: str | os.PathLike[str], split: str, allow_outside: bool) -> frozenset[str] | None:
    """The references of the training split as tokens, where there is one beside the measured split."""
    if split == TRAIN or TRAIN not in read_prepared(data).splits:
        return None
    records = read_split(data, TRAIN, allow_outside=allow_outside)
    return frozenset(tokenize(text) for record in records for text in record.references)


def _expanded(model: str | os.PathLike[str]) -> list[str]:
    """`runs/x@all` stands for every checkpoint of the run."""
    name = os.fspath(model)
    run, at, which = name.rpartition("@")
    if not at or which != "all" or not Run.is_run(run):
        return [name]
    return [f"{run}@{checkpoint.name}" for checkpoint in Run(run).checkpoints()]


def _measure(
    name: str,
    records: list[ImageRecord],
    resolved: Resolved,
    metrics: Sequence[str],
    context: MetricContext,
    sheets: Path | None,
    progress: Progress,
    processes: Processes,
) -> tuple[MetricReport, dict[str, Caption]]:
    from captune.core.machine import versions
    from captune.metrics.measure import measure

    values = resolved.values
    with progress.task(f"Loading {name}"):
        model = load_model(name, values, processes=processes)
    explained = bool(values.eval.explain) and sheets is not None and processes.first
    backbone = backbone_of(model, name, "--explain") if explained else None
    generation = resolved.with_defaults("generation", dict(model.generation)).generation
    batch = values.eval.eval_batch_size
    own_records = records[processes.rank :: processes.count]
    captions = caption_records(
        model, own_records, generation, batch_size=batch, progress=progress, label=f"Captioning ({name})"
    )
    captions = {key: one for part in processes.gather(captions) for key, one in part.items()}
    if backbone is not None and sheets is not None:
        chosen = sample_records(records, values.eval.explain)
        draw_attention_sheets(backbone, chosen, captions, generation, sheets, progress)
    also = []
    if values.eval.perplexity and isinstance(model, ConcurrentModel):
        progress.info(f"{name} is behind a server: its perplexity of the references is not known.")
    elif values.eval.perplexity:
        likelihood = _likelihood(model, name, own_records, batch, progress)
        also = [joined(processes.gather(likelihood)).measured()]
    with progress.task(f"Measuring {name}"):
        report = measure(
            {record.id: captions[record.id].text for record in records},
            {record.id: record.references for record in records},
            metrics,
            context,
            resamples=values.measure.resamples,
            also=also,
            progress=progress,
        )
    settings = {
        **report.settings,
        "generation": generation.model_dump(),
        "device": model.device,
        "decoder": model.decoder,
        "pixels": values.run_on.preprocessing,
        "precision": model.precision,
        "versions": versions(),
    }
    return replace(report, settings=settings), captions


def _likelihood(
    model: CaptioningModel, name: str, records: list[ImageRecord], batch: int, progress: Progress
) -> ReferenceLikelihood:
    from captune.inference.runtime import ExportedModel

    label = f"Perplexity ({name})"
    if isinstance(model, ExportedModel):
        from captune.inference.runtime.model import likelihood_of_references as of_export

        return of_export(model, records, progress=progress, label=label)
    from captune.evaluation.evaluator import likelihood_of_references

    backbone = backbone_of(model, name, "Perplexity")
    return likelihood_of_references(backbone, records, batch_size=batch, progress=progress, label=label)
