"""Which pictures a report shows large: the best, the worst, and where two models differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from captune.app.report.facts import Picture, ReportData
from captune.app.report.scores import LIKELIHOODS, label, ranking_key

SHOWN = 6


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong under one heading, ordered by the score `key`."""

    title: str
    about: str
    key: str
    pictures: tuple[Picture, ...]


def galleries(data: ReportData, count: int = SHOWN) -> tuple[Gallery, ...]:
    """The first model's best and worst pictures, then for each other model where either is far ahead.

    Pictures without a score are not chosen. Empty where no score was measured for each picture.
    """
    key = ranking_key(key for key in data.picture_keys if key != "confidence")
    if key is None:
        return ()
    sign = -1 if key in LIKELIHOODS else 1
    first = data.models[0]

    def best(pictures: Sequence[Picture], value: dict[str, float]) -> tuple[Picture, ...]:
        return tuple(sorted(pictures, key=lambda picture: -value[picture.id])[:count])

    scored = [picture for picture in data.pictures if key in picture.scores[0]]
    value = {picture.id: sign * picture.scores[0][key] for picture in scored}
    top = best(scored, value)
    rest = [picture for picture in scored if picture.id not in {one.id for one in top}]
    by = f"by {label(key)}{'' if key in LIKELIHOODS else ' × 100'}"
    found = [
        Gallery("Best captions", f"{first.label}: highest first, {by}", key, top),
        Gallery(
            "Worst captions", f"{first.label}: worst first, {by}", key, best(rest, {k: -v for k, v in value.items()})
        ),
    ]
    for place, other in enumerate(data.models[1:], start=1):
        both = [picture for picture in scored if key in picture.scores[place]]
        ahead = {p.id: sign * (p.scores[0][key] - p.scores[place][key]) for p in both}
        behind = {name: -value for name, value in ahead.items()}
        found += [
            Gallery(
                f"{one.label} far ahead of {two.label}",
                f"largest difference first, {by}",
                key,
                tuple(p for p in best(both, lead) if lead[p.id] > 0),
            )
            for one, two, lead in ((first, other, ahead), (other, first, behind))
        ]
    return tuple(gallery for gallery in found if gallery.pictures)


def repeated(data: ReportData, place: int, count: int = 5) -> list[tuple[str, int]]:
    """A model's captions that stand under several pictures, the most frequent first."""
    counts = Counter(picture.captions[place] for picture in data.pictures)
    return [(text, times) for text, times in counts.most_common(count) if text and times > 1]
