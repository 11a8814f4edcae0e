"""Which words mean the same: WordNet's sets of synonyms, found through inflected forms as well."""

from __future__ import annotations

from functools import cache, lru_cache

from captune.metrics.meteor.data import read_member

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
