"""What stands already where captune writes: a person's words stay unless an option says otherwise.

captune knows its own captions by a file `.captune-written` in the folder that they lie in: a digest for each caption
with the name of its file or image. Words without one there are a person's, a caption that was corrected among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from captune.core.errors import CaptuneError
from captune.core.files import disk_error
from captune.core.wording import counted

Mode = Literal["keep", "replace", "append", "prepend"]
LEDGER = ".captune-written"
_DIGITS = 16


@dataclass
class ExistingCaptions:
    """How a writer goes about what stands already, and how often it left that as it was.

    `fetch` is called with a path before it is read: where files are put elsewhere later, it brings what stands there.
    """

    mode: Mode = "keep"
    fetch: Callable[[Path], None] = lambda path: None
    preserved: int = 0
    what: str = "captions"
    _ledgers: dict[Path, Ledger] = field(default_factory=dict)

    def ledger(self, folder: Path) -> Ledger:
        """What captune wrote in a folder."""
        if folder not in self._ledgers:
            self.fetch(folder / LEDGER)
            self._ledgers[folder] = Ledger(folder / LEDGER)
        return self._ledgers[folder]

    def joined(self, words: Sequence[str], captions: Sequence[str]) -> list[str]:
        """What is to stand: a person's `words` and new `captions`, as the mode says; no caption twice."""
        if not words or self.mode == "replace":
            return list(captions)
        if self.mode == "keep":
            self.preserved += list(words) != list(captions)
            return list(words)
        new = [caption for caption in captions if caption not in words]
        return [*words, *new] if self.mode == "append" else [*new, *words]

    @property
    def notes(self) -> list[str]:
        """What the user should know in the end."""
        if not self.preserved:
            return []
        return [
            f"Kept as they are: {counted(self.preserved, self.what.removesuffix('s'))} that captune did not write "
            "(--existing replace, append or prepend changes them)."
        ]


class Ledger:
    """Digests of what captune wrote in a folder, a line each; lines are added and never changed.

    Lines are added before what they speak of appears, so that a stop at any moment leaves no caption of captune's
    that looks like a person's. A line that was cut off speaks of nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError as error:
            raise CaptuneError(f"Cannot read {path}: {error.strerror}.", "Change its permissions.") from None
        self._known = known_digests(data)
        self._cut_off = bool(data) and not data.endswith(b"\n")

    def has(self, name: str, text: str) -> bool:
        """Whether captune wrote this text there."""
        return digest(name, text) in self._known

    def add(self, digests: Iterable[str]) -> None:
        """Note what is about to be written; raises `CaptuneError` where that is not possible."""
        new = [one for one in dict.fromkeys(digests) if one not in self._known]
        if not new:
            return
        lines = ("\n" if self._cut_off else "") + "".join(f"{one}\n" for one in new)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab") as file:
                file.write(lines.encode("ascii"))
        except OSError as error:
            raise disk_error(error, self._path) from error
        self._cut_off = False
        self._known.update(new)


def split_keywords(text: str, ledger: Ledger, name: str) -> tuple[list[str], list[str]]:
    """The lines of the file `name` without the keywords that `captune tag` put between their commas, and those.

    Lines without any are as they were, ends included; a line of nothing else is left out. A caption of captune's that
    is a list itself stays whole.
    """
    lines: list[str] = []
    keywords: list[str] = []
    for line in text.splitlines(keepends=True):
        body = line.rstrip("\r\n")
        rest, own = _split(body.split(","), ledger, name)
        if not own:
            lines.append(line)
        elif rest.strip():
            lines.append(rest.strip() + line[len(body) :])
        keywords += [part.strip() for part in own]
    return lines, keywords


def _split(parts: list[str], ledger: Ledger, name: str) -> tuple[str, list[str]]:
    """What lies between the commas of a line: the line without captune's keywords, and those."""
    own = [bool(part.strip()) and ledger.has(keywords_in(name), part) for part in parts]
    start, end = 0, len(parts)
    while start < end and own[end - 1] and not ledger.has(name, ",".join(parts[start:end])):
        end -= 1
    while start < end and own[start] and not ledger.has(name, ",".join(parts[start:end])):
        start += 1
    if start < end and ledger.has(name, ",".join(parts[start:end])):
        own[start:end] = [False] * (end - start)
    pairs = list(zip(parts, own, strict=True))
    return ",".join(part for part, is_own in pairs if not is_own), [part for part, is_own in pairs if is_own]


def with_keywords(text: str, keywords: Sequence[str]) -> str:
    """Captions with the keywords of `captune tag` where it puts them: behind the only line, or on one of their own."""
    if not keywords:
        return text
    new = ", ".join(keywords)
    return f"{text.rstrip()}, {new}\n" if len(text.splitlines()) == 1 else f"{text}{new}\n"


def keywords_in(name: str) -> str:
    """Under which name a ledger has the keywords that captune wrote into the file `name`."""
    return f"{name}/keywords"


def known_digests(data: bytes) -> set[str]:
    """The digests in the contents of a ledger."""
    return {line for line in data.decode("ascii", "replace").split("\n") if len(line) == _DIGITS}


def digest(name: str, text: str | bytes) -> str:
    """What the ledger has for a text under a name; spaces and line breaks do not count."""
    words = " ".join(text.split()).encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return hashlib.sha256(name.encode("utf-8", "surrogatepass") + b"\0" + words).hexdigest()[:_DIGITS]
