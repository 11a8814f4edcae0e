"""METEOR's data, read where the user installed it: nothing of it is part of captune.

The wheel `pycocoevalcap` holds the English word lists inside METEOR's jar, and the paraphrase
table beside it. Neither Java nor any code of the wheel is run.
"""

from __future__ import annotations

import zipfile
from functools import cache
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
