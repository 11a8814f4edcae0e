"""Captions against references. A metric is one file here and one line in `METRICS`."""

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
        "sacrebleu": "captune.metrics.sacrebleu_score:sacrebleu_score",
    },
    group="captune.metrics",
)
