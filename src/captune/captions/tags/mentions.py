"""Keywords in the words of a caption: labels that it mentions, or the list that it is."""

import re
from collections import defaultdict
from collections.abc import Iterable

from captune.captions.tags.labels import Label
from captune.core.errors import CaptuneError, missing_extra
from captune.images.metadata.keywords import unique

_WORD = re.compile(r"[^\W_]+")
_NONE, _ARTICLES = ("no", "without"), ("a", "an", "any", "the")
# A keyword of more words is a sentence.
_MOST_WORDS = 4


class MentionFinder:
    """Finds labels by their names and the English plurals of those, whole words, the longest name first.

    What a caption says is not there ("no dog", "without a dog") is no mention.
    """

    def __init__(self, labels: Iterable[Label]) -> None:
        try:
            import inflect
        except ImportError:
            raise missing_extra("inflect", "tags", "Finding labels in captions") from None
        engine = inflect.engine()
        by_first: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
        for label in labels:
            for name in label.names:
                words = _words(name)
                if words:
                    plural = _words(engine.plural_noun(" ".join(words)))
                    for form in (words, plural):
                        by_first[form[0]].append((form, label.keyword))
        self._forms = {first: sorted(forms, key=lambda form: -len(form[0])) for first, forms in by_first.items()}

    def find(self, caption: str) -> list[str]:
        """The labels in a caption, in the order in which it mentions them."""
        words, found, at = _words(caption), [], 0
        while at < len(words):
            form, keyword = next(
                (form for form in self._forms.get(words[at], ()) if words[at : at + len(form[0])] == form[0]),
                ([words[at]], ""),
            )
            if keyword and not _is_denied(words[:at]):
                found.append(keyword)
            at += len(form)
        return unique(found)


def list_in(caption: str) -> list[str]:
    """The keywords of a caption that is a list of them; raises `CaptuneError` where it is a sentence."""
    parts = [part.strip(" \t.\"'#*-") for part in re.split(r"[,;\n]", caption)]
    found = unique(part for part in parts if part)
    long = next((part for part in found if len(part.split()) > _MOST_WORDS), None)
    if long is not None or not found:
        what = f"“{long[:60]}” is a sentence" if long else "it is empty"
        raise CaptuneError(
            f"The caption is no list of keywords: {what}.", "Give --labels FILE: the words to look for in captions."
        )
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _is_denied(before: list[str]) -> bool:
    """Whether the words before a name say that there is none."""
    while before and before[-1] in _ARTICLES:
        before = before[:-1]
    return bool(before) and before[-1] in _NONE
