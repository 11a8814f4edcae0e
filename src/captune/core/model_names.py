"""How a model is named: a folder, a run, a checkpoint of a run, a Hub id, or one that is still to be made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.exported import export_folder
from captune.core.model_folders import file_error, folder_error, is_weights_name
from captune.core.runs import Run
from captune.core.suggestions import nearest, question

NEW = "new:"
# What captune saves beside the weights: family, prompt, options of the search.
CARD = "captune.json"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")


def is_new(name: str) -> bool:
    """Whether `name` asks for a model from scratch (`new:blip-small`)."""
    return name.startswith(NEW)


def parse_new_name(name: str, sizes: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Family and size of a `new:` name, where `sizes` are those of every family; raises `UsageError`."""
    asked = name.removeprefix(NEW)
    family = max((each for each in sizes if asked.startswith(f"{each}-")), key=len, default="")
    size = asked.removeprefix(f"{family}-")
    if family and size in sizes[family]:
        return family, size
    known = {each: [f"{NEW}{each}-{size}" for size in sizes[each]] for each in sizes}
    if asked in sizes:
        raise UsageError(f"{name} names no size.", f"There are: {', '.join(known[asked])}.")
    if family:
        raise UsageError(f"There is no size '{size}' of {family}.", did_you_mean(name, known[family]))
    ends = sorted({end for listed in sizes.values() for end in listed if asked.lower().endswith(f"-{end}")}, key=len)
    given = (asked[: -len(ends[-1]) - 1] if ends else asked.rpartition("-")[0]) or asked
    if given and not nearest(given, sizes):
        raise unknown_family(given, sizes)
    names = [each for listed in known.values() for each in listed]
    raise UsageError(f"There is no new model '{name}'.", did_you_mean(name.lower(), names))


def unknown_family(family: str, known: Iterable[str], whose: str = "") -> UsageError:
    """The error for a family that nothing installed brings; `whose` is the model that needs it."""
    needed = f", which {whose} needs" if whose else ""
    return UsageError(
        f"There is no model family '{family}' here{needed}.",
        f"Known: {', '.join(sorted(known))}. A family of another package is here once that package is installed.",
    )


def is_pair(name: str) -> bool:
    """Whether `name` joins a vision and a text checkpoint (`openai/clip-vit-base-patch32+openai-community/gpt2`)."""
    return "+" in name and not is_new(name) and not os.path.exists(os.path.expanduser(name))


def hub_name(name: str) -> tuple[str, str | None]:
    """Repository and revision (a branch, a tag, a commit) of a Hub id: `org/name@v1.0`; None where it names none."""
    repository, at, revision = name.partition("@")
    return (repository, revision) if at and revision else (name, None)


def local_folder(name: str) -> Path | None:
    """The folder that `name` stands for, or None for a Hub id, with a revision (`org/name@v1.0`) or without.

    `runs/x` is the best checkpoint of a run, `runs/x@last` (or @best-loss, @epoch-3,
    @checkpoint-100) another one. Raises `CaptuneError` for what is no model here, and none that the Hub may have.
    """
    if is_new(name):
        raise UsageError(f"{name} is a model without training.", "`new:` models are for `captune train --model`.")
    if is_pair(name):
        raise UsageError(f"{name} has not learned to look yet.", "Train it first: captune train --model VISION+TEXT.")
    if export_folder(name) is not None:
        raise CaptuneError(
            f"{name} is an export: it captions, but holds no model that could be taught, explained or pushed.",
            "Name the model that was exported.",
        )
    base, at, which = name.rpartition("@")
    if at and Run.is_run(base):
        return Run(base).checkpoint(which).path
    if Run.is_run(name):
        return Run(name).checkpoint().path
    # os.path also answers for names that no file system takes (too long, a NUL), where pathlib raises.
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            raise folder_error(name, path)
        return path
    if os.path.isfile(path):
        raise file_error(name, path)
    if at and os.path.isdir(base):
        raise CaptuneError(
            f"{base} is not a run, so it has no checkpoint '{which}'.", "Give a run folder before the @."
        )
    on_the_hub = _ADDRESS.match(name)
    if on_the_hub:
        raise CaptuneError(f"{name} is an address.", f"Give the Hub id alone: {on_the_hub[1]}")
    if is_weights_name(name):
        raise CaptuneError(f"There is no file {name}.", "Check the path; a model is a folder, or a Hub id.")
    if os.path.exists(path) or name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        meant = did_you_mean_beside(name)
        hint = "Check the path, or give a Hub id such as org/name."
        raise CaptuneError(f"There is no model folder {name}.", f"{meant} {hint}" if meant else hint)
    return None


def did_you_mean_beside(name: str) -> str:
    """'Did you mean 'runs/first'?' where a folder has a name like the one that is not there; else empty."""
    path = Path(os.path.expanduser(name.partition("@")[0]))
    try:
        beside = [one.name for one in path.parent.iterdir() if one.is_dir()]
    except (OSError, ValueError):
        return ""
    near = nearest(path.name, beside)
    return question(str(path.parent / one) for one in near) if near else ""
