"""`captune compare`: evaluations that are already there, side by side, on the same pictures."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.files.paths import written_here
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption, ImageRecord
from captune.evaluation.report import write_report
from captune.evaluation.results import PER_IMAGE, Evaluation, read_captions, write_evaluation
from captune.metrics.corpus import metric_context
from captune.metrics.significance import compare_with_first


def compare(
    runs: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Evaluation:
    """Measure the captions that evaluations of runs hold once more, together, with paired tests.

    `runs` are runs or other folders that `captune evaluate` wrote into; each stands for the
    first model of its evaluation, and the first one is compared with every other. One folder
    alone stands for all the models in it. No model is loaded. With `out` the same files are
    written there as an evaluation writes. Raises `CaptuneError` where the evaluations are
    not about the same images and references.
    """
    resolved = resolve("compare", preset=preset, file=config, environment=environment, flags=options, sets=sets)
    from captune.metrics.measure import measure

    records: tuple[ImageRecord, ...] = ()
    captions: dict[str, dict[str, Caption]] = {}
    for run in runs:
        model, found, by_model = read_captions(run)
        if not captions:
            records = found
        _check_same_images(runs[0], records, run, found)
        captions |= {model: by_model.pop(model), **by_model} if len(runs) == 1 else {str(run): by_model[model]}
    if len(captions) < 2:
        raise CaptuneError("Comparing needs two models at least.", "For example: captune compare runs/a runs/b")
    chosen = resolved.values.measure
    context = metric_context(chosen, pictures={record.id: record.image for record in records})
    reports = {}
    for name, by_id in captions.items():
        with progress.task(f"Measuring {name}"):
            reports[name] = measure(
                {record.id: by_id[record.id].text for record in records},
                {record.id: record.references for record in records},
                chosen.metrics,
                context,
                resamples=chosen.resamples,
                progress=progress,
            )
    comparisons = compare_with_first(reports, chosen.resamples)
    evaluation = Evaluation(reports, captions, records, comparisons, Path(out) if out else None)
    if out is not None:
        write_evaluation(evaluation, out, own=all(written_here(run, [PER_IMAGE]) for run in runs))
        write_report(out, progress=progress)
    return evaluation


def _check_same_images(
    one: str | os.PathLike[str],
    records: tuple[ImageRecord, ...],
    other: str | os.PathLike[str],
    found: tuple[ImageRecord, ...],
) -> None:
    left, right = ({record.id: record.references for record in group} for group in (records, found))
    again = "Evaluate both on the same split with the same limits: captune evaluate RUN --data DIR"
    if left.keys() != right.keys():
        only = f"{len(left.keys() - right.keys())} only in the first, {len(right.keys() - left.keys())} in the second"
        raise CaptuneError(f"{one} and {other} were not evaluated on the same images: {only}.", again)
    differing = [key for key, references in left.items() if sorted(references) != sorted(right[key])]
    if differing:
        raise CaptuneError(
            f"{one} and {other} were not evaluated against the same references: {len(differing)} images differ, "
            f"the first is {differing[0]}.",
            again,
        )
