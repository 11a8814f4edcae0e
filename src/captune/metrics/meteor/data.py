"""METEOR's data: word lists and synonyms, read from where the user installed them.

The wheel `pycocoevalcap` holds the English word lists inside METEOR's jar, and the paraphrase
table beside it. Neither Java nor any code of the wheel is run.
"""

import zipfile
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from captune.core.errors import CaptuneError, MetricUnavailable

JAR, PARAPHRASES = "meteor-1.5.jar", "data/paraphrase-en.gz"


def folder() -> Path:
    """Where METEOR's files are; raises `MetricUnavailable` where the wheel is not installed."""
    spec = find_spec("pycocoevalcap")
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = Path(place) / "meteor"
        if (found / JAR).is_file() and (found / PARAPHRASES).is_file():
            return found
    raise MetricUnavailable(
        "METEOR needs word lists and a paraphrase table that are not installed.",
        "pip install 'captune[meteor]'  (it brings them in the wheel pycocoevalcap; Java is not needed)",
    )


def read_member(name: str) -> list[str]:
    """Lines of a text file inside the jar."""
    path = folder() / JAR
    try:
        with zipfile.ZipFile(path) as jar:
            return jar.read(name).decode("utf-8").split("\n")
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise CaptuneError(
            f"{path} cannot be read ({error}).", "Install it again: pip install --force-reinstall pycocoevalcap"
        ) from None


@cache
def function_words() -> frozenset[str]:
    """Words that count less than the others."""
    return frozenset(word for word in read_member("function/english.words") if word)


@cache
def abbreviations() -> tuple[frozenset[str], frozenset[str]]:
    """Words that keep their period, and words that keep it before a number."""
    always: set[str] = set()
    numeric: set[str] = set()
    for line in read_member("nonbreaking/english.prefixes"):
        if line and not line.startswith("#"):
            word, *mark = line.split()
            (numeric if mark else always).add(word)
    return frozenset(always), frozenset(numeric)


# WordNet's rules of detachment: an ending and what takes its place; the first that leads to a known word counts.
_RULES = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man")),
    *(("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    *(("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
)


@lru_cache(maxsize=1 << 17)
def synonym_sets(word: str) -> frozenset[str]:
    """Numbers of the sets that a lower-case word, or its base form, belongs to."""
    sets, bases = _sets(), _exceptions()
    found = frozenset(sets.get(word, ()))
    if word in bases:
        return found.union(*(sets.get(base, ()) for base in bases[word]))
    for ending, put in () if word.endswith("ss") or len(word) <= 2 else _RULES:
        if word.endswith(ending):
            base = word[: len(word) - len(ending)] + put
            if base in sets:
                return found.union(sets[base])
    return found


@cache
def _sets() -> dict[str, tuple[str, ...]]:
    lines = read_member("synonym/english.synsets")
    return {word: tuple(numbers.split()) for word, numbers in zip(lines[::2], lines[1::2], strict=False)}


@cache
def _exceptions() -> dict[str, list[str]]:
    """Base forms of irregular words."""
    lines = read_member("synonym/english.exceptions")
    bases: dict[str, list[str]] = {}
    for base, forms in zip(lines[::2], lines[1::2], strict=False):
        for form in forms.split():
            bases.setdefault(form, []).append(base)
    return bases
