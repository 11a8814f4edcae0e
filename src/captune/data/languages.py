"""Whether a sentence can be in a language: by its letters and its small words, without a model.

What this does not find: a sentence in another language of the same script for which there is no
list of small words here, or that is shorter than six words; wrong words of the right language.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

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
# No language of these does without one of its words in a sentence of six or more that describes a picture.
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
