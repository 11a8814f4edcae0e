"""Measure captions against references with any of the metrics."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

from captune.core.errors import CaptuneError, MetricUnavailable, UsageError, did_you_mean
from captune.core.progress import SILENT, Progress
from captune.core.text import first_few, unsegmented
from captune.metrics import METRICS
from captune.metrics.corpus import Corpus, MetricContext, MetricResult, Statistics
from captune.metrics.report import MetricReport
from captune.metrics.significance import RESAMPLES, intervals

# METEOR is left out where its data is not installed.
AUTO = "auto"
ANSWERS = "vqa_accuracy"
ALIASES = {"rouge": "rouge_l", "clipscore": "clip_score"}
DEFAULT_METRICS = ("bleu", "meteor", "rouge_l", "cider", "sacrebleu")


def measure(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] | None = None,
    context: MetricContext | None = None,
    resamples: int = RESAMPLES,
    also: Sequence[MetricResult] = (),
    progress: Progress = SILENT,
) -> MetricReport:
    """Score one caption per image against its references.

    Both mappings have the same image ids as keys; the number of references may differ
    from image to image. An empty caption scores 0. `metrics` are names from `METRICS`;
    "auto" among them stands for `DEFAULT_METRICS`, as do none at all. One that cannot run on
    this machine is left out, and the settings say why. `context` is what some of them need
    besides captions and references. `resamples` is the number of bootstrap samples behind the
    intervals, 0 for none. `also` are results that were measured elsewhere, for the images in
    the order of `hypotheses`. Raises `CaptuneError` where ids do not match or an image has no
    references, `UsageError` for an unknown metric, `MetricUnavailable` where the only one
    cannot run.
    """
    wanted = {name: METRICS[name] for name in metric_names(metrics)}
    corpus = replace(_corpus(hypotheses, references), context=context or MetricContext(), progress=progress)
    per_image = corpus.references_per_image
    settings: dict[str, Any] = {
        "tokenizer": "ptb",
        "references_per_image": {"min": int(per_image.min()), "max": int(per_image.max())},
        "captions": vocabulary(corpus),
    }
    if counts := unsegmented(chain(corpus.hypotheses, *corpus.references)):
        settings["unsegmented"] = counts
    scores: dict[str, float] = {}
    statistics: tuple[Statistics, ...] = ()
    by_image: dict[str, dict[str, float]] = {image: {} for image in corpus.ids}
    results: list[MetricResult] = []
    for name, metric in wanted.items():
        try:
            results.append(metric(corpus))
        except MetricUnavailable as error:
            if len(wanted) == 1:
                raise
            settings.setdefault("left_out", {})[name] = str(error)
    for measured in chain(results, also):
        scores |= measured.scores
        settings |= measured.settings
        statistics += (measured.statistics,) if measured.statistics else ()
        for key, values in measured.per_image.items():
            for image, value in zip(corpus.ids, values, strict=True):
                by_image[image][key] = float(value)
    return MetricReport(
        scores=scores,
        per_image=by_image,
        images=len(corpus.ids),
        references=int(per_image.sum()),
        settings=settings,
        intervals=intervals(statistics, resamples) if resamples else {},
        statistics=statistics,
    )


def metric_names(metrics: Sequence[str] | None = None) -> tuple[str, ...]:
    """The metrics that a list of names (or none at all) stands for; an unknown one raises `UsageError`."""
    if isinstance(metrics, str):
        raise UsageError(f"metrics='{metrics}': expected a list of names.", f"For example: metrics=['{metrics}']")
    chosen = [ALIASES.get(name, name) for name in ([AUTO] if metrics is None else metrics)]
    names = tuple(dict.fromkeys(chain.from_iterable(DEFAULT_METRICS if n == AUTO else (n,) for n in chosen)))
    if not names:
        raise UsageError("No metric was named.", f"Choose from: {', '.join(sorted(METRICS))}.")
    for name in names:
        if name not in METRICS:
            raise UsageError(f"There is no metric '{name}'.", did_you_mean(name, METRICS))
    return names


def metrics_for(questions: bool, metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics with those of answers to questions, if the images have `questions` and the choice is captune's."""
    return (*metrics, ANSWERS) if questions and AUTO in metrics else tuple(metrics)


def _corpus(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Corpus:
    """Check what the user gave and put it in the order of `hypotheses`."""
    if not hypotheses and not references:
        raise CaptuneError("There are no images to measure.", "Give at least one caption with its references.")
    strangers = [image for image in hypotheses if image not in references]
    if strangers:
        raise CaptuneError(
            f"{len(strangers)} of {len(hypotheses)} captions have no references: {first_few(strangers)}.",
            f"Image ids must be the same on both sides; the references' look like: {first_few(references)}.",
        )
    missing = [image for image in references if image not in hypotheses]
    if missing:
        raise CaptuneError(
            f"{len(missing)} of {len(references)} images with references have no caption: {first_few(missing)}.",
            "Caption them too (an empty caption counts as 0), or leave their references out.",
        )
    for image, group in references.items():
        if isinstance(group, str) or not all(isinstance(reference, str) for reference in group):
            raise CaptuneError(
                f"The references of image {image!r} are not a list of strings.", 'Expected: {"id": ["first", "second"]}'
            )
        if not isinstance(hypotheses[image], str):
            raise CaptuneError(f"The caption of image {image!r} is not a string.", 'Expected: {"id": "caption"}')
    bare = [image for image, group in references.items() if not len(group)]
    if bare:
        raise CaptuneError(
            f"{len(bare)} of {len(references)} images have no references: {first_few(bare)}.",
            "Leave these images out; without a reference there is nothing to measure against.",
        )
    ids = tuple(hypotheses)
    return Corpus(ids, tuple(hypotheses[image] for image in ids), tuple(tuple(references[image]) for image in ids))


def vocabulary(corpus: Corpus) -> dict[str, Any]:
    """Shares are 0–1, words are tokens.

    `distinct` captions among all, `repeated` captions that stand at another image as well,
    `distinct_1` and `distinct_2`: different words and word pairs among all of them (Li et
    al. 2016), number of different words, mean length, number of empty captions, and `novel`
    captions, which no training reference equals (where the training's are known).
    """
    captions = corpus.sentences[: len(corpus.ids)]
    words = corpus.tokens[: len(corpus.ids)]
    times = Counter(captions)
    singles = Counter(word for caption in words for word in caption)
    pairs = Counter(pair for caption in words for pair in pairwise(caption))
    found = {
        "distinct": len(times) / len(captions),
        "repeated": sum(count for count in times.values() if count > 1) / len(captions),
        "distinct_1": len(singles) / max(1, singles.total()),
        "distinct_2": len(pairs) / max(1, pairs.total()),
        "vocabulary": len(singles),
        "mean_length": singles.total() / len(words),
        "empty": sum(not caption for caption in words),
    }
    if corpus.context.training is not None:
        found["novel"] = sum(caption not in corpus.context.training for caption in captions) / len(captions)
    return found
