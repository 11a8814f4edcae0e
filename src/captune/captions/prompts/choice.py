"""Which prompt an image gets: the same for all, one of several by weight and folder, or that of its row."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self

import yaml

from captune.captions.prompts.template import Template, template_for
from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.files import open_regular
from captune.core.files.limits import parse_yaml
from captune.core.options.prompts import PromptOptions
from captune.core.text import decoded

_KEYS = ("prompt", "weight", "folder")
_EXAMPLE = "For example, in YAML:\n- prompt: 'Describe this photo.'\n  weight: 2\n- 'What is happening here?'"


@dataclass(frozen=True)
class Choice:
    """A prompt of several: how often it is taken, and the pattern of the folders that it is for ("": all)."""

    prompt: str
    weight: float = 1.0
    folder: str = ""

    def is_for(self, folders: Sequence[PurePosixPath]) -> bool:
        return any(folder.match(self.folder) for folder in folders)

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "weight": self.weight, "folder": self.folder}


def read_choices(path: str) -> tuple[Choice, ...]:
    """The prompts of a file; raises `CaptuneError` for what is none, naming the entry."""
    try:
        with open_regular(path) as file:
            text = decoded(file.read())
    except OSError as error:
        raise CaptuneError(f"Cannot read the prompts in {path}: {error.strerror}.", "Check the path.") from None
    entries: Any = [line.strip() for line in text.splitlines() if line.strip()]
    if Path(path).suffix.lower() in (".yaml", ".yml", ".json"):
        try:
            entries = parse_yaml(text)  # JSON is YAML
        except yaml.YAMLError as error:
            raise CaptuneError(f"{path} is no YAML: {' '.join(str(error).split())}.", _EXAMPLE) from None
    if not isinstance(entries, list) or not entries:
        raise CaptuneError(f"{path} holds no list of prompts.", _EXAMPLE)
    return tuple(_choice(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1))


def _choice(entry: Any, where: str) -> Choice:
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str) or not entry["prompt"].strip():
        raise CaptuneError(f"{where}: there is no prompt.", _EXAMPLE)
    for key in entry:
        if key not in _KEYS:
            raise CaptuneError(f"{where}: there is no key '{key}'.", did_you_mean(str(key), _KEYS))
    weight, folder = entry.get("weight", 1.0), entry.get("folder", "")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
        raise CaptuneError(f"{where}: the weight {weight!r} is no number above 0.", "Leave the entry out, or raise it.")
    if not isinstance(folder, str):
        raise CaptuneError(f"{where}: the folder {folder!r} is no pattern.", "For example: folder: 'cats'")
    try:
        Template.of(entry["prompt"])
    except UsageError as error:
        raise CaptuneError(f"{where}: {error.message}", error.hint) from None
    return Choice(entry["prompt"], float(weight), folder.rstrip("/"))


@dataclass(frozen=True)
class Prompts:
    """The prompt of each image: one of `choices`, or where none is for it `default` (None: the model's `own`).

    All are templates (`captions.prompts.template`).
    """

    default: str | None = None
    own: str = ""
    choices: tuple[Choice, ...] = ()
    seed: int = 0

    @classmethod
    def of(
        cls, options: PromptOptions, default: str | None, own: str = "", choices: tuple[Choice, ...] | None = None
    ) -> Self:
        """As the options have it; raises `CaptuneError` for a file or a field that there is not.

        `choices` are those of the options' file, where it was read before.
        """
        if choices is None:
            choices = read_choices(options.prompts) if options.prompts is not None else ()
        return cls(default, own, choices, options.prompt_seed)

    def __post_init__(self) -> None:
        _ = self.fields  # raises for one that there is not

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields that are read of images."""
        plain = self.own if self.default is None else self.default
        templates = [Template.of(prompt) for prompt in (plain, *(one.prompt for one in self.choices))]
        return frozenset().union(*(one.fields for one in templates))

    @property
    def vary(self) -> bool:
        """Whether images may have different prompts."""
        return bool(self.choices or self.fields)

    def template(self, name: str) -> Template:
        """The template for an image of this name."""
        choice = self._choice(name) if self.choices else None
        return Template.of(choice.prompt if choice else self.own if self.default is None else self.default)

    def text(
        self,
        name: str,
        read: Callable[[frozenset[str]], Mapping[str, str]],
        fits: Callable[[str], bool] = lambda prompt: True,
        question: str = "",
    ) -> str | None:
        """The prompt of an image as the model reads it; None: the model's own, which is the same for all.

        `read` gives the values of the fields that are needed. A `question` stands in its place, else behind.
        """
        if not (self.vary or question or self.default is not None):
            return None
        template = self.template(name)
        if question and not self.choices:
            template = template_for(self.own, self.default, question)
        values = dict(read(template.fields)) if template.fields else {}
        return template.asking(question, values, fits)

    def _choice(self, name: str) -> Choice | None:
        """One of those whose folder the image lies in, else of those for all."""
        path = PurePosixPath(name if "://" in name else Path(name).absolute().as_posix())
        folders = list(path.parents)
        fitting = [one for one in self.choices if one.folder and one.is_for(folders)]
        fitting = fitting or [one for one in self.choices if not one.folder]
        if not fitting:
            return None
        # The last two parts of a path are the same on every machine.
        text = json.dumps([self.seed, *path.parts[-2:]])
        share = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
        left = share * sum(one.weight for one in fitting)
        for one in fitting:
            left -= one.weight
            if left < 0:
                return one
        return fitting[-1]


def prompts_of(values: Any, own: str = "", choices: tuple[Choice, ...] | None = None) -> Prompts:
    """The prompts that the options of a verb ask for, of a model whose own prompt is `own`."""
    options = getattr(values, "prompts", PromptOptions())
    return Prompts.of(options, values.generation.prompt, own, choices)
