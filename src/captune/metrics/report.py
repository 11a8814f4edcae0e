"""The values of an evaluation: corpus scores, per-image scores, and what they were made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from captune.core.wording import counted
from captune.metrics import spec_of
from captune.metrics.corpus import Statistics

# The COCO caption code puts 1e-15 in the place of a count of zero: BLEU-4 without one right sequence of
# four words is at most the fourth root of that, 1.8e-4. It says nothing about captions.
AS_GOOD_AS_ZERO = 2e-4


def relative_change(name: str, new: float, old: float) -> float | None:
    """How much higher `new` is as a share of `old`: 0.25 is a quarter more. None where `old` is as good as zero."""
    nothing = abs(old) < AS_GOOD_AS_ZERO if spec_of(name).higher_is_better else old == 0
    return None if nothing else (new - old) / abs(old)


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval, on the scale of its score."""

    low: float
    high: float


@dataclass(frozen=True)
class MetricReport:
    """Captions of one model measured against references.

    `scores` are corpus scores, 0–1 (CIDEr-D as it is, 0–10), keyed `bleu_1` … `bleu_4`,
    `rouge_l`, `cider`, and what else was measured; `intervals` has those that can be sampled
    again; `per_image` has the same keys for each image id; `settings` says how they came about
    (tokenizer, document frequencies, signature). `statistics` are what comparisons work on;
    their rows are in the order of `per_image`. They are not written to files.
    """

    scores: dict[str, float]
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    images: int = 0
    references: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    statistics: tuple[Statistics, ...] = field(default=(), repr=False, compare=False)

    @property
    def notes(self) -> list[str]:
        """What makes the scores mean less than they seem to."""
        but = " (METEOR alone takes every sign by itself)" if "meteor" in self.scores else ""
        return [
            f"{count:,} captions and references are in {language}, without spaces between words: the scores take each "
            f"as one word, so that only equal sentences score{but}. Put spaces between the words on both sides."
            for language, count in self.settings.get("unsegmented", {}).items()
        ]

    def difference(self, other: MetricReport) -> dict[str, float]:
        """This report's scores minus the other's, for the scores that both have."""
        return {name: value - other.scores[name] for name, value in self.scores.items() if name in other.scores}

    def relative(self, other: MetricReport) -> dict[str, float]:
        """The same differences as shares of the other's scores, where those are not as good as zero."""
        found = {name: relative_change(name, self.scores[name], other.scores[name]) for name in self.difference(other)}
        return {name: share for name, share in found.items() if share is not None}

    def _repr_html_(self) -> str:
        """In a notebook: the scores × 100 (perplexity and loss as they are) with their 95 % intervals."""
        rows = []
        for name, value in self.scores.items():
            text, interval = spec_of(name).text, self.intervals.get(name)
            between = f"{text(interval.low)} to {text(interval.high)}" if interval else ""
            rows.append(f"<tr><th scope='row'>{escape(name)}</th><td>{text(value)}</td><td>{between}</td></tr>")
        return (
            f"<table><caption>{counted(self.images, 'image')}, {counted(self.references, 'reference')}</caption>"
            "<thead><tr><th scope='col'>Score</th><th scope='col'>× 100</th><th scope='col'>95 % interval</th></tr>"
            f"</thead><tbody>{''.join(rows)}</tbody></table>"
        )

    def to_json(self, *, per_image: bool = True) -> dict[str, Any]:
        report: dict[str, Any] = {
            "scores": self.scores,
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
            "images": self.images,
            "references": self.references,
            "settings": self.settings,
        }
        return {**report, "per_image": self.per_image} if per_image else report
