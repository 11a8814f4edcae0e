"""Captions against references. A metric is one file here, and lines in `METRICS` and `SPECS`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from captune.core.tables import Table

METRICS = Table(
    "metric",
    {
        "bleu": "captune.metrics.bleu:bleu",
        "meteor": "captune.metrics.meteor:meteor",
        "rouge_l": "captune.metrics.rouge_l:rouge_l",
        "cider": "captune.metrics.cider:cider",
        "cider_plain": "captune.metrics.cider:cider_plain",
        "spice": "captune.metrics.spice:spice",
        "clip_score": "captune.evaluation.clip_score:clip_score",
        "vqa_accuracy": "captune.metrics.vqa:vqa_accuracy",
        "ter": "captune.metrics.ter:ter",
        "sacrebleu": "captune.metrics.bleu:sacrebleu_score",
    },
    group="captune.metrics",
)


@dataclass(frozen=True)
class MetricSpec:
    """A score as readers meet it: a value times `scale`, in a `unit`.

    `rule` is the selection rule over this score alone, empty for none.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    scale: float = 100
    rule: str = ""

    @property
    def sign(self) -> int:
        """What a value is multiplied with so that more is better."""
        return 1 if self.higher_is_better else -1

    def text(self, value: float) -> str:
        """A value in words: 0.123 is `12.3`, a perplexity `8.41`."""
        return f"{self.scale * value:.1f}" if self.scale != 1 else f"{value:,.2f}"


SPECS = {
    spec.name: spec
    for spec in (
        *(MetricSpec(f"bleu_{order}", f"BLEU-{order}") for order in (1, 2, 3)),
        MetricSpec("bleu_4", "BLEU-4", rule="bleu"),
        MetricSpec("meteor", "METEOR", rule="meteor"),
        MetricSpec("rouge_l", "ROUGE-L", rule="rouge"),
        MetricSpec("vqa_accuracy", "VQA accuracy", rule="vqa-accuracy"),
        MetricSpec("cider", "CIDEr-D", rule="cider"),
        MetricSpec("cider_plain", "CIDEr"),
        MetricSpec("spice", "SPICE"),
        MetricSpec("sacrebleu", "sacreBLEU"),
        MetricSpec("ter", "TER", higher_is_better=False),
        MetricSpec("clip_score", "CLIPScore"),
        MetricSpec("ref_clip_score", "RefCLIPScore"),
        MetricSpec("loss", "Loss", unit="nats a token", higher_is_better=False, scale=1, rule="loss"),
        MetricSpec("perplexity", "Perplexity", higher_is_better=False, scale=1),
        MetricSpec("confidence", "Confidence"),
    )
}


def spec_of(score: str) -> MetricSpec:
    """What is known about a score; of an unknown one that more is better, and × 100.

    A metric of another package says it by `SCORES`, a sequence of `MetricSpec` beside its function.
    """
    if score in SPECS:
        return SPECS[score]
    return next((spec for spec in _others() if spec.name == score), MetricSpec(score, score.replace("_", " ")))


def _others() -> Iterator[MetricSpec]:
    for name, target in METRICS.targets.items():
        if not target.startswith("captune."):
            yield from getattr(sys.modules[METRICS[name].__module__], "SCORES", ())
