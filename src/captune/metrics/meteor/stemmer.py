"""The English stemmer of METEOR: Porter's second, as Snowball defined it when METEOR was made.

Porter, "The English (Porter2) stemming algorithm", snowballstem.org. Today's Snowball stems
some 150 words of a dictionary otherwise, which would change METEOR.
"""

import re
from functools import lru_cache

_WHOLE = {
    **{"skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl"},
    **{"gently": "gentl", "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl"},
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}
_AFTER_PLURAL = frozenset(["inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"])
_VOWEL = "aeiouy"
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_REGION = re.compile(rf"[^{_VOWEL}]*[{_VOWEL}]+[^{_VOWEL}]")
_SHORT_SYLLABLE = re.compile(rf"(?:[^{_VOWEL}][{_VOWEL}][^{_VOWEL}wxY]|^[{_VOWEL}][^{_VOWEL}])\Z")

_STEP2 = {
    **{"tional": "tion", "enci": "ence", "anci": "ance", "abli": "able", "entli": "ent", "izer": "ize"},
    **{"ization": "ize", "ational": "ate", "ation": "ate", "ator": "ate", "alism": "al", "aliti": "al", "alli": "al"},
    **{"fulness": "ful", "ousli": "ous", "ousness": "ous", "iveness": "ive", "iviti": "ive", "biliti": "ble"},
    **{"bli": "ble", "ogi": "og", "fulli": "ful", "lessli": "less", "li": ""},
}
_STEP3 = {
    **{"tional": "tion", "ational": "ate", "alize": "al", "icate": "ic", "iciti": "ic", "ical": "ic"},
    **{"ful": "", "ness": "", "ative": ""},
}
_STEP4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ism", "ate", "iti"),
    *("ous", "ive", "ize", "ion"),
)


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if word in _WHOLE:
        return _WHOLE[word]
    if len(word) <= 2:
        return word
    word = _mark_consonant_y(word.removeprefix("'"))
    first, second = _regions(word)
    word = _without(word, ("'s'", "'s", "'"))
    word = _plural(word)
    if word not in _AFTER_PLURAL:
        word = _past(word, first)
        if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWEL:
            word = word[:-1] + "i"
        word = _step2(word, first)
        word = _step3(word, first, second)
        word = _step4(word, second)
        word = _step5(word, first, second)
    return word.replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    letters = list(word)
    for place, letter in enumerate(letters):
        if letter == "y" and (place == 0 or letters[place - 1] in _VOWEL):
            letters[place] = "Y"
    return "".join(letters)


def _regions(word: str) -> tuple[int, int]:
    """Where R1 and R2 begin."""
    first = next((len(start) for start in ("gener", "commun", "arsen") if word.startswith(start)), 0)
    if not first:
        found = _REGION.match(word)
        first = found.end() if found else len(word)
    found = _REGION.match(word, first)
    return first, found.end() if found else len(word)


def _without(word: str, endings: tuple[str, ...]) -> str:
    ending = next((e for e in endings if word.endswith(e)), "")
    return word.removesuffix(ending)


def _has_vowel(text: str) -> bool:
    return any(letter in _VOWEL for letter in text)


def _plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _has_vowel(word[:-2]):
        return word[:-1]
    return word


def _past(word: str, first: int) -> str:
    for ending in ("eedly", "eed"):
        if word.endswith(ending):
            return word.removesuffix(ending) + "ee" if len(word) - len(ending) >= first else word
    ending = next((e for e in ("ingly", "edly", "ing", "ed") if word.endswith(e)), "")
    if not ending or not _has_vowel(word.removesuffix(ending)):
        return word
    word = word.removesuffix(ending)
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if word.endswith(_DOUBLES):
        return word[:-1]
    return word + "e" if len(word) <= first and _SHORT_SYLLABLE.search(word) else word


def _longest(word: str, endings: object) -> str:
    return max((e for e in endings if word.endswith(e)), key=len, default="")  # type: ignore[attr-defined]


def _step2(word: str, first: int) -> str:
    ending = _longest(word, _STEP2)
    rest = word.removesuffix(ending)
    if not ending or len(rest) < first:
        return word
    if (ending == "ogi" and not rest.endswith("l")) or (ending == "li" and rest[-1:] not in tuple("cdeghkmnrt")):
        return word
    return rest + _STEP2[ending]


def _step3(word: str, first: int, second: int) -> str:
    ending = _longest(word, _STEP3)
    rest = word.removesuffix(ending)
    if not ending or len(rest) < (second if ending == "ative" else first):
        return word
    return rest + _STEP3[ending]


def _step4(word: str, second: int) -> str:
    ending = _longest(word, _STEP4)
    rest = word.removesuffix(ending)
    if not ending or len(rest) < second or (ending == "ion" and not rest.endswith(("s", "t"))):
        return word
    return rest


def _step5(word: str, first: int, second: int) -> str:
    rest = word[:-1]
    if word.endswith("e") and (len(rest) >= second or (len(rest) >= first and not _SHORT_SYLLABLE.search(rest))):
        return rest
    if word.endswith("l") and len(rest) >= second and rest.endswith("l"):
        return rest
    return word
