"""Command lines in pages, and whether captune's own parser takes them."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any

from captune.cli.flags import ClickException
from captune.cli.main import load
from captune.core.errors import CaptuneError
from captune.core.verbs import VERBS
from doc_blocks import ROOT

_EXTRAS = re.compile(r"captune\[([\w,]+)\]")
_ENDS = ("|", "||", "&", "&&", ";", ">", ">>", "<", "(", ")")
# Of Docker, in the text of containers.md.
_OTHERS = {
    "--build-arg", "--secret", "--env", "--volume", "--network", "--read-only", "--tmpfs", "--cap-drop",
    "--security-opt", "--cpus", "--user", "--shm-size",
}  # fmt: skip
_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_GENERATED = re.compile(r"<!-- generated: .*?<!-- end -->", re.DOTALL)


def command_lines(code: str) -> Iterator[list[str]]:
    """The words of every `captune …` in a block of shell, wherever it stands in a pipe."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        while "captune" in words:
            words = words[words.index("captune") + 1 :]
            end = next((number for number, word in enumerate(words) if word in _ENDS), len(words))
            if words[:end]:
                yield words[:end]


def refusal(words: list[str]) -> str:
    """Why captune's parser does not take these words; empty where it does."""
    if words[0] not in VERBS:
        return "" if words[0].startswith("--") else f"there is no verb '{words[0]}'"
    try:
        _parse(load(words[0]), words)
    except ClickException as error:
        return str(error.format_message())
    except CaptuneError as error:
        return error.message
    return ""


def _parse(command: Any, words: list[str]) -> None:
    inner = getattr(command, "commands", {})
    if words[1:] and words[1] in inner:
        command, words = inner[words[1]], words[1:]
    command.make_context(words[0], list(words[1:])).close()


def unknown_flags(text: str) -> list[str]:
    """Flags in a page's running text that none of captune's verbs has; of `captune VERB …`, that this verb lacks."""
    found = []
    for code in _CODE.findall(_GENERATED.sub("", text)):
        words = code.split()
        if words[0] == "captune" and len(words) > 1 and words[1] in VERBS:
            found += [flag for flag in _FLAG.findall(code) if flag not in flags(words[1])]
        elif words[0].startswith("--"):
            known = _OTHERS.union(*map(flags, VERBS))
            found += [flag for flag in _FLAG.findall(code) if flag not in known]
    return found


def unknown_extras(text: str) -> set[str]:
    """Names in `captune[…]` that pyproject.toml does not declare."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {name for names in _EXTRAS.findall(text) for name in names.split(",")} - set(
        project["optional-dependencies"]
    )


def unknown_targets(code: str) -> set[str]:
    """Targets of `make` in a block that the Makefile lacks."""
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) - known


@cache
def flags(verb: str) -> frozenset[str]:
    command = load(verb)
    every = [command, *getattr(command, "commands", {}).values()]
    named = [flag for one in every for each in one.params for flag in (*each.opts, *each.secondary_opts)]
    return frozenset((*named, "--help", "-h"))
