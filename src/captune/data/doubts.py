"""Which captions to look at first: the least confident, and those with something odd about them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captune.core.records import Caption
from captune.data.languages import language_mismatch
from captune.data.writers.row import CaptionRow

# A phrase of this many words that comes twice anywhere is a repetition; shorter ones only side by side.
LONG = 5
JOINTS = ("and", "or", "with")


@dataclass(frozen=True)
class ReviewItem:
    """A picture with its best caption and what is odd about it.

    `confidence` is 0–1, None where the file says none. `flags` name what is odd, with a few words on it: `failed`
    (no caption), `empty`, `repeats` (a phrase comes twice), `language` (hardly in the language that was asked for),
    `same` (said of several pictures), `duplicate` (nearly the same picture as another).
    """

    image: str
    caption: str
    confidence: float | None
    flags: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"image": self.image, "caption": self.caption, "confidence": self.confidence, "flags": self.flags}


def review_items(
    rows: Iterable[CaptionRow], *, same: int = 3, duplicates: Mapping[str, str] | None = None
) -> list[ReviewItem]:
    """All pictures, the most doubtful first: failed ones, empty captions, then by rising confidence.

    A caption on `same` or more pictures is flagged (0: never); `duplicates` name for a picture the one it repeats.
    """
    rows = list(rows)
    counts = Counter(_plain(row.captions[0].text) for row in rows if row.captions)
    found = [_item(row, counts, same, duplicates or {}) for row in rows]
    return sorted(found, key=_order)


def flags_of(caption: Caption, language: str | None = None) -> dict[str, str]:
    """What is odd about a caption by itself; `language` is the one it should be in, None where nobody said."""
    flags = {}
    if not caption.text.strip():
        flags["empty"] = "no words"
    if phrase := repeated_phrase(caption.text):
        flags["repeats"] = phrase
    if why := language_mismatch(caption.text, language, caption.original):
        flags["language"] = why
    return flags


def _item(row: CaptionRow, counts: Counter[str], same: int, duplicates: Mapping[str, str]) -> ReviewItem:
    if not row.captions:
        return ReviewItem(row.image, "", None, {"failed": row.error or "no caption"})
    best = row.captions[0]
    flags = {**dict.fromkeys(row.flags or (), "flagged by the job"), **flags_of(best)}
    times = counts[_plain(best.text)]
    if best.text.strip() and same and times >= same:
        flags["same"] = f"on {times:,} pictures"
    if row.image in duplicates:
        flags["duplicate"] = f"of {duplicates[row.image]}"
    return ReviewItem(row.image, best.text, best.confidence if math.isfinite(best.confidence) else None, flags)


def repeated_phrase(text: str) -> str:
    """The first phrase that comes twice side by side, or with "and" between, or that is long; "" for none."""
    words = _plain(text).split()
    starts = [start for start, word in enumerate(words) if word in words[start + 1 :]]
    for length in range(len(words) // 2, 0, -1):
        for start in starts:
            if start > len(words) - 2 * length:
                break
            phrase = words[start : start + length]
            behind = words[start + length :]
            joined = length > 1 and behind[:1] and behind[0] in JOINTS and behind[1 : length + 1] == phrase
            if behind[:length] == phrase or joined or (length >= LONG and _within(phrase, behind)):
                return " ".join(phrase)
    return ""


def _within(phrase: Sequence[str], words: Sequence[str]) -> bool:
    return any(words[n : n + len(phrase)] == phrase for n in range(len(words) - len(phrase) + 1))


def _plain(text: str) -> str:
    return " ".join(word for raw in text.casefold().split() if (word := raw.strip(".,;:!?\"'()")))


def _order(item: ReviewItem) -> tuple[int, float]:
    if item.confidence is None:
        return (0, 0.0) if "failed" in item.flags else (3, 0.0)
    return (1 if "empty" in item.flags else 2, item.confidence)
