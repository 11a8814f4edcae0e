"""How a score is named and written for readers, and which images a report shows large."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from captune.evaluation.report.data import Picture, ReportData
from captune.metrics import spec_of
from captune.metrics.report import relative_change

# What images are ranked by: the first of these that was measured for each image.
RANKING = ("vqa_accuracy", "cider", "spice", "meteor", "rouge_l", "bleu_4", "sacrebleu", "bleu_1")
SCALE_NOTE = "Scores × 100 (CIDEr-D can exceed 100); loss (nats a token) and perplexity as they are, lower is better."


def label(key: str) -> str:
    return spec_of(key).label


def scaled(key: str, value: float) -> float:
    """The value on the scale that readers see: × 100, but likelihoods as they are."""
    return spec_of(key).scale * value


def is_likelihood(key: str) -> bool:
    """Whether a score is a likelihood (loss, perplexity): as it is, and the lower the better."""
    return not spec_of(key).higher_is_better


def shown(key: str, value: float | None) -> str:
    """A score in words; an en dash where there is none."""
    if value is None:
        return "–"
    text = spec_of(key).text(value)
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def signed(key: str, value: float) -> str:
    """A difference in words, with its sign."""
    text = shown(key, value)
    return text if text.startswith("−") or not any(digit in text for digit in "123456789") else f"+{text}"


def relative(key: str, new: float, old: float) -> str:
    """A change as a share of what was before; an en dash where that is as good as zero."""
    share = relative_change(key, new, old)
    if share is None:
        return "–"
    text = f"{100 * share:+,.1f} %".replace("-", "−")
    return text if any(digit in text for digit in "123456789") else "0.0 %"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def better(key: str, values: Iterable[float | None]) -> float | None:
    """The best of several models' scores, or None where none is better than another."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return None
    return max(known, key=lambda value: spec_of(key).sign * value)


def ranking_key(data: ReportData) -> str | None:
    """The score that images are ranked by, from those that each image has."""
    known = [key for key in data.picture_keys if key != "confidence"]
    preferred = [key for key in RANKING if key in known]
    return next(iter([*preferred, *(key for key in known if not is_likelihood(key)), *known]), None)


SHOWN = 6


@dataclass(frozen=True)
class Gallery:
    """Images that belong under one heading, ordered by the score `key`."""

    title: str
    about: str
    key: str
    pictures: tuple[Picture, ...]


def galleries(data: ReportData, count: int = SHOWN) -> tuple[Gallery, ...]:
    """The first model's best and worst images, then for each other model where either is far ahead.

    Images without a score are not chosen. Empty where no score was measured for each image.
    """
    key = ranking_key(data)
    if key is None:
        return ()
    sign = spec_of(key).sign
    first = data.models[0]

    def best(pictures: Sequence[Picture], value: dict[str, float]) -> tuple[Picture, ...]:
        return tuple(sorted(pictures, key=lambda picture: -value[picture.id])[:count])

    scored = [picture for picture in data.pictures if key in picture.scores[0]]
    value = {picture.id: sign * picture.scores[0][key] for picture in scored}
    top = best(scored, value)
    rest = [picture for picture in scored if picture.id not in {one.id for one in top}]
    by = f"by {label(key)}{'' if is_likelihood(key) else ' × 100'}"
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
    """A model's captions that stand under several images, the most frequent first."""
    counts = Counter(image.captions[place] for image in data.pictures)
    return [(text, times) for text, times in counts.most_common(count) if text and times > 1]
