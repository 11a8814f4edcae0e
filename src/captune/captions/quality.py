"""Which captions to check first: low confidence, repeated words, the wrong language, words of a chat.

What this does not find: a sentence in another language of the same script for which there is no
list of small words here, or that is shorter than six words; wrong words of the right language.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captune.captions.phrases import chat_phrase, echo, plain, refusal, thought
from captune.captions.row import CaptionRow
from captune.core.records import Caption

# A name or a sign in another script does not make another language.
_FOREIGN_SHARE = 0.2
_WORDS_TO_JUDGE = 6
_SCRIPTS = {
    "CYRILLIC": "ru uk bg sr mk be kk ky mn tg",
    "GREEK": "el",
    "ARABIC": "ar fa ur ps sd ug",
    "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "bn as",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "ETHIOPIC": "am ti",
    "HANGUL": "ko",
    "CJK": "zh",
    "KANA": "ja",
}
_SCRIPT_OF = {code: script for script, codes in _SCRIPTS.items() for code in codes.split()}
# Scripts that are written together.
_ALSO = {"KANA": {"CJK"}, "HANGUL": {"CJK"}}
# Word lists instead of py3langid (a dependency of 4.5 MB, 0.3 ms a caption against 0.05): on 8,000 English captions of
# Flickr8k they raise 14 false alarms, py3langid at a probability of 0.5 raises 2.
# No language of these does without one of its words in a sentence of six or more that describes an image.
_SMALL_WORDS = {
    "en": "a an the of in on at with and is are by to from his her its their two three some",
    "de": "der die das den dem des ein eine einen einem einer eines und in im am an auf mit von zu zum zur ist sind "
    "vor neben zwei drei bei aus über",
    "fr": "le la les l un une des de du d et est sont dans sur avec à au aux en par deux trois",
    "es": "el la los las un una unos unas de del y está están es son en con por sobre a al dos tres",
    "it": "il lo la i gli le l un uno una di del della dei e è sono in nel nella con su sul sulla a al da due tre",
    "pt": "o a os as um uma uns umas de do da dos das e está estão é são em no na com por ao dois duas três",
    "nl": "de het een en van in op met is zijn aan bij voor naast te twee drie uit over",
}


def language_mismatch(text: str, language: str | None, original: str | None = None) -> str:
    """Why `text` is hardly in `language` (ISO 639; None: unknown), in a few words; "" where nothing says so.

    Without a language only a mixture of scripts is language_mismatch. `original` is what was translated.
    """
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    letters = scripts.total()
    if "\N{REPLACEMENT CHARACTER}" in text:
        return "holds broken characters"
    if not letters:
        return "no letters" if text.strip() else ""
    code = None if language is None else language.lower().replace("-", "_").partition("_")[0]
    expected = scripts.most_common(1)[0][0] if code is None else _SCRIPT_OF.get(code, "LATIN")
    foreign = letters - sum(scripts[each] for each in {expected, *_ALSO.get(expected, ())})
    if foreign > _FOREIGN_SHARE * letters:
        return f"{foreign} of {letters} letters are not {expected.title()}"
    words = [word for raw in text.casefold().replace("'", " ").split() if (word := raw.strip('.,;:!?"()'))]
    if original is not None and code != "en" and len(words) > 2 and text.casefold() == original.casefold():
        return "stayed as it was"
    small = _SMALL_WORDS.get(code or "")
    if small and len(words) >= _WORDS_TO_JUDGE and not set(small.split()) & set(words):
        return f"no small word of '{code}' among {len(words)}"
    return ""


def _script(letter: str) -> str:
    if letter < "\u0250":
        return "LATIN"
    name = unicodedata.name(letter, "").partition(" ")[0]
    return "KANA" if name in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name.partition("-")[0]


# A phrase of this many words that comes twice anywhere is a repetition; shorter ones only side by side.
LONG = 5
JOINTS = ("and", "or", "with")


@dataclass(frozen=True)
class ReviewItem:
    """An image with its best caption and what is odd about it.

    `confidence` is 0–1, None where the file says none. `flags` name what is odd, with a few words on it: `failed`
    (no caption), `cut` (no end within its most tokens), `empty`, `repeats` (a phrase comes twice), `language` (hardly
    in the language that was asked for), `same` (on several images), `duplicate` (nearly the same image as another), and
    the other `RULES`. `written_by` is "model" or "person", None where the row does not say: the confidence and the
    flags of a caption that a person wrote or corrected are not those of the job.
    """

    image: str
    caption: str
    confidence: float | None
    flags: dict[str, str] = field(default_factory=dict)
    written_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        known = {} if self.written_by is None else {"written_by": self.written_by}
        return {
            "image": self.image, "caption": self.caption, "confidence": self.confidence, "flags": self.flags, **known
        }  # fmt: skip


def review_items(
    rows: Iterable[CaptionRow], *, same: int = 3, duplicates: Mapping[str, str] | None = None
) -> list[ReviewItem]:
    """All images, the most doubtful first: failed ones, empty captions, then by rising confidence.

    A caption on `same` or more images is flagged (0: never); `duplicates` name for an image the one it repeats.
    """
    rows = list(rows)
    counts = Counter(plain(row.captions[0].text) for row in rows if row.captions)
    found = [_item(row, counts, same, duplicates or {}) for row in rows]
    return sorted(found, key=_order)


# The rules for a caption by itself, by the names of their flags.
RULES = {
    "cut": "It had no end when it had as many tokens as it may have.",
    "empty": "It has no words.",
    "repeats": "A phrase comes twice.",
    "language": "It is hardly in the language that was asked for.",
    "refusal": "The model refuses to describe the image.",
    "chat": "It speaks to the person who asked: “Sure!”, “Here is a caption:”.",
    "thinking": "Marks of the model's thoughts are in it.",
    "echo": "It repeats the prompt, where captions answer one.",
}


def flags_of(caption: Caption, language: str | None = None, prompt: str | None = None) -> dict[str, str]:
    """What is odd about a caption by itself, by the names of `RULES`, each with a few words on it.

    `language` is the one it should be in, None where it is unknown; `prompt` is what it answers, None where it
    continues one, or nobody knows.
    """
    text = caption.text
    found = {
        "cut": "no end within its tokens" if caption.cut else "",
        "empty": "" if text.strip() else "no words",
        "repeats": repeated_phrase(text),
        "language": language_mismatch(text, language, caption.original),
        "refusal": refusal(text),
        "chat": chat_phrase(text),
        "thinking": thought(text),
        "echo": echo(text, prompt),
    }
    return {name: why for name, why in found.items() if why}


def _item(row: CaptionRow, counts: Counter[str], same: int, duplicates: Mapping[str, str]) -> ReviewItem:
    if not row.captions:
        return ReviewItem(row.image, "", None, {"failed": row.error or "no caption"})
    best = row.captions[0]
    of_job = () if row.is_corrected else row.flags or ()
    flags = {**dict.fromkeys(of_job, "flagged by the job"), **flags_of(best)}
    times = counts[plain(best.text)]
    if best.text.strip() and same and times >= same:
        flags["same"] = f"on {times:,} images"
    if row.image in duplicates:
        flags["duplicate"] = f"of {duplicates[row.image]}"
    confidence = None if row.is_corrected or not math.isfinite(best.confidence) else best.confidence
    written_by = None if row.provenance is None else row.provenance.for_caption(best).written_by
    return ReviewItem(row.image, best.text, confidence, flags, written_by)


def repeated_phrase(text: str) -> str:
    """The first phrase that comes twice side by side, or with "and" between, or that is long; "" for none."""
    words = plain(text).split()
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


def _order(item: ReviewItem) -> tuple[int, float]:
    if item.confidence is None:
        return (0, 0.0) if "failed" in item.flags else (3, 0.0)
    return (1 if "empty" in item.flags else 2, item.confidence)
