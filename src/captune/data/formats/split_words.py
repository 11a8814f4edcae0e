"""The words that people use for splits."""

from __future__ import annotations

import re

WORDS = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's COCO pictures that belong to no evaluation split
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_named(word: str) -> str | None:
    """`train`, `val` or `test` for a usual word, else the word itself in lower case; None for nothing."""
    word = word.strip().lower()
    return WORDS.get(word, word) or None


def split_in(name: str) -> str | None:
    """The split that a file or folder name such as `captions_val2017` speaks of, or None."""
    found = {WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in WORDS}
    return found.pop() if len(found) == 1 else None
