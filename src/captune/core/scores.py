"""The values of an evaluation: corpus scores, per-image scores, and what they were made with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class MetricReport:
    """Captions of one model measured against references.

    `scores` are corpus scores, 0–1 (CIDEr-D as it is, 0–10), keyed `bleu_1` … `bleu_4`,
    `rouge_l`, `cider`, and what else was measured; `per_image` has the same keys for each image
    id; `settings` says how they came about (tokenizer, document frequencies, signature).
    """

    scores: dict[str, float]
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    images: int = 0
    references: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def difference(self, other: MetricReport) -> dict[str, float]:
        """This report's scores minus the other's, for the scores that both have."""
        return {name: value - other.scores[name] for name, value in self.scores.items() if name in other.scores}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
