"""Find and replace in captions of a library, and the same beginning or end for all: shown first, then done."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import regex

from captune.core.errors import CaptuneError
from captune.library.history import ConflictError, Editor

How = Literal["plain", "regex", "prefix", "suffix"]
SECONDS = 5.0
MAX_LENGTH = 20_000
_DIGITS = 32


@dataclass(frozen=True)
class Replacement:
    """What is to be done to each caption.

    `plain`: `find` becomes `replace`; `regex`: the same for a pattern, with groups as `\\1`; `prefix`, `suffix`: a
    caption begins or ends with `replace`, unless it does already. Case counts where `match_case` is set.
    """

    how: How
    find: str
    replace: str
    match_case: bool = True
    whole_words: bool = False

    def rewrite(self) -> Callable[[str], str]:
        """The function that does it to a text; raises `CaptuneError` for a pattern that is none."""
        if self.how == "prefix":
            return lambda text: text if text.startswith(self.replace) else self.replace + text
        if self.how == "suffix":
            return lambda text: text if text.endswith(self.replace) else text + self.replace
        if not self.find:
            raise CaptuneError("There is nothing to find.", "Write what is to be replaced.")
        pattern = self.find if self.how == "regex" else regex.escape(self.find, special_only=True, literal_spaces=True)
        if self.whole_words:
            pattern = rf"(?<!\w)(?:{pattern})(?!\w)"
        flags = regex.V0 if self.match_case else regex.V0 | regex.IGNORECASE
        try:
            compiled = regex.compile(pattern, flags)
            template = self.replace if self.how == "regex" else self.replace.replace("\\", "\\\\")
            compiled.sub(template, "")
        except (regex.error, IndexError, OverflowError, RecursionError) as error:
            raise CaptuneError(
                f"This is no regular expression: {error}.", r"A group is (…), and \1 names it."
            ) from None
        return _within(SECONDS, compiled, template)


def _within(seconds: float, pattern: regex.Pattern[str], template: str) -> Callable[[str], str]:
    """Replace within so many seconds for all texts together; raises `CaptuneError`."""
    end = time.monotonic() + seconds

    def rewrite(text: str) -> str:
        try:
            return pattern.sub(template, text, concurrent=True, timeout=max(0.001, end - time.monotonic()))
        except TimeoutError:
            raise CaptuneError(
                f"This pattern takes longer than {seconds:g} seconds.", "Make it simpler, or filter fewer images."
            ) from None
        except (regex.error, IndexError) as error:
            raise CaptuneError(f"This cannot be put in its place: {error}.", r"Groups are named \1, \2, …") from None

    return rewrite


@dataclass(frozen=True)
class Change:
    """A caption that would change: its number, that of its image, and its text before and after."""

    caption: int
    image: int
    path: str
    before: str
    after: str


def find_changes(captions: Iterable[sqlite3.Row], replacement: Replacement) -> list[Change]:
    """What would change of captions (`listed_captions`).

    Raises `CaptuneError` for one that would be empty or too long.
    """
    rewrite = replacement.rewrite()
    changes = []
    for row in captions:
        after = rewrite(row["text"])
        if after == row["text"]:
            continue
        if len(after) > MAX_LENGTH:
            raise CaptuneError(f"A caption of {row['path']} would have {len(after):,} characters.", "Replace less.")
        if not after.strip():
            raise CaptuneError(f"A caption of {row['path']} would have no words.", "Replace less.")
        changes.append(Change(row["id"], row["image"], row["path"], row["text"], after))
    return changes


def digest_of(changes: Iterable[Change]) -> str:
    """What tells whether changes are those that somebody looked at."""
    found = hashlib.sha256()
    for change in changes:
        found.update(f"{change.caption}\0{change.after}\0".encode("utf-8", "surrogatepass"))
    return found.hexdigest()[:_DIGITS]


def make_changes(editor: Editor, changes: list[Change], digest: str, without: Iterable[int] = ()) -> int:
    """Make the changes whose digest it is, but not those of the captions `without`; how many were made.

    Raises `ConflictError` where they are not those that were looked at.
    """
    if digest_of(changes) != digest:
        raise ConflictError("Captions were changed since this was shown.")
    left_out = set(without)
    made = [change for change in changes if change.caption not in left_out]
    for change in made:
        editor.write_caption(change.image, change.after, of=change.caption)
    return len(made)
