"""What some metrics need besides captions and references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captune.core.options import MeasureOptions
from captune.metrics.document_frequencies import DocumentFrequencies

CLIP_MODEL = MeasureOptions().clip_model


@dataclass(frozen=True)
class MetricContext:
    """Every field is optional; a metric that lacks one of its own says so.

    `document_frequencies` are what CIDEr weighs n-grams with (None: those of the
    references). `pictures` are files by image id and `clip_model` the CLIP that looks at
    them, on `device`. `spice_jars` is the folder of SPICE's jars. `training` are the
    captions a model has learned from, as tokens: the others are new.
    """

    document_frequencies: DocumentFrequencies | None = None
    pictures: Mapping[str, str] | None = None
    clip_model: str = CLIP_MODEL
    device: str = "auto"
    spice_jars: str | None = None
    training: frozenset[str] | None = None


def metric_context(options: MeasureOptions, **given: Any) -> MetricContext:
    """The context that options name; `given` are other fields of it."""
    return MetricContext(
        document_frequencies=DocumentFrequencies.find(options.document_frequencies),
        clip_model=options.clip_model,
        spice_jars=options.spice_jars,
        **given,
    )
