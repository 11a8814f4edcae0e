"""A Dockerfile as stages of instructions, and what .dockerignore lets through: as much of both as captune's use.

No here-documents, no parser directives; an instruction that is not known is an error.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

BUILT = frozenset({"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR"})
STARTED = frozenset({"USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD", "LABEL"})
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:[-+])([^}]*))?\})")


@dataclass(frozen=True)
class Instruction:
    """`name` in capitals, its `--flag=value` pairs in order, and the rest as it is written."""

    name: str
    flags: tuple[tuple[str, str], ...]
    rest: str
    line: int

    def words(self) -> list[str]:
        """The rest as words: a JSON array (exec form), or words with shell quotes."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)

    def flag(self, name: str) -> str | None:
        return dict(self.flags).get(name)


@dataclass(frozen=True)
class Stage:
    """What stands between a FROM and the next; `base` is an image or another stage's name."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Dockerfile:
    """`arguments` are the ARGs before the first FROM, with their defaults."""

    arguments: dict[str, str]
    stages: dict[str, Stage]

    def needed(self, target: str) -> list[Stage]:
        """The stages that `target` is made of, each after those it comes from; others are not built."""
        if target not in self.stages:
            raise ValueError(f"There is no stage {target}: {', '.join(self.stages)}")
        stage = self.stages[target]
        copied = [i.flag("from") for i in stage.instructions if i.name == "COPY"]
        found: list[Stage] = []
        for name in (stage.base, *copied):
            if name in self.stages:
                found += [one for one in self.needed(name) if one not in found]
        return [*found, stage]


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile; raises `ValueError` with the line that is not understood."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    for one in _instructions(text):
        if one.name not in BUILT | STARTED:
            raise ValueError(f"line {one.line}: unknown instruction {one.name}")
        if one.name == "FROM":
            base, *name = re.split(r"\s+as\s+", one.rest, flags=re.IGNORECASE)
            label = name[0] if name else str(len(stages))
            stages[label] = Stage(label, base, ())
        elif stages:
            last = next(reversed(stages.values()))
            stages[last.name] = Stage(last.name, last.base, (*last.instructions, one))
        elif one.name == "ARG":
            key, _, value = one.rest.partition("=")
            arguments[key] = value
        else:
            raise ValueError(f"line {one.line}: {one.name} before the first FROM")
    return Dockerfile(arguments, stages)


def _instructions(text: str) -> Iterable[Instruction]:
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") or (not line.strip() and not parts):
            continue
        first = first if parts else number
        whole = line.rstrip()
        parts.append(whole.removesuffix("\\").strip())
        if whole.endswith("\\"):
            continue
        name, _, rest = " ".join(part for part in parts if part).partition(" ")
        parts = []
        flags = []
        while match := _FLAG.match(rest):
            flags.append((match[1], match[2]))
            rest = rest[match.end() :]
        yield Instruction(name.upper(), tuple(flags), rest.strip(), first)
    if parts:
        raise ValueError(f"line {first}: the last line goes on, and nothing follows")


def substitute(text: str, values: Mapping[str, str]) -> str:
    """`$X`, `${X}`, `${X:-otherwise}` and `${X:+instead}` with `values`; what is unknown is empty."""

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1] or match[2], "")
        if match[3] == ":-":
            return found or match[4]
        if match[3] == ":+":
            return match[4] if found else ""
        return found

    return _VARIABLE.sub(value, text)


def let_through(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file of the context (a relative path) reaches the builder; the last pattern that fits decides."""
    kept = True
    pieces = path.split("/")
    parents = ["/".join(pieces[:count]) for count in range(1, len(pieces) + 1)]
    for line in patterns:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!").strip("/")
        if any(_fits(parent, wanted) for parent in parents):
            kept = pattern.startswith("!")
    return kept


def _fits(path: str, pattern: str) -> bool:
    """`*` and `?` stay within a folder's name, `**/` is any number of folders."""
    if pattern.startswith("**/"):
        rest = path.split("/")
        return any(_fits("/".join(rest[start:]), pattern[3:]) for start in range(len(rest)))
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(fnmatchcase(n, w) for n, w in zip(names, wanted, strict=True))
