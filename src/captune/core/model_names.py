"""How a model is named: a folder, a run, a checkpoint of a run, a Hub id, or one that is still to be made."""

from __future__ import annotations

import re
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.exported import export_folder
from captune.core.runs import Run

NEW = "new:"
# What captune saves beside the weights: family, prompt, options of the search.
CARD = "captune.json"
# Files of weights without a model's configuration and tokenizer.
WEIGHTS_ALONE = frozenset((".pt", ".pth", ".bin", ".ckpt", ".pkl", ".safetensors"))
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_new(name: str) -> bool:
    """Whether `name` asks for a model from scratch (`new:blip-small`)."""
    return name.startswith(NEW)


def is_pair(name: str) -> bool:
    """Whether `name` joins a vision and a text checkpoint (`openai/clip-vit-base-patch32+openai-community/gpt2`)."""
    return "+" in name and not is_new(name) and not Path(name).expanduser().exists()


def local_folder(name: str) -> Path | None:
    """The folder that `name` stands for, or None for a Hub id.

    `runs/x` is the best checkpoint of a run, `runs/x@last` (or @best-loss, @epoch-3,
    @checkpoint-100) another one.
    """
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
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            weights = next((file for file in sorted(path.iterdir()) if file.suffix in WEIGHTS_ALONE), None)
            raise CaptuneError(
                f"The folder {name} holds no model: it has no config.json.",
                "Give a run folder, a model folder in the Hub's layout, or a Hub id."
                if weights is None
                else f"Make a model of its weights: captune convert {weights} --like BASE_MODEL --out DIR",
            )
        return path
    if at and Path(base).is_dir():
        raise CaptuneError(
            f"{base} is not a run, so it has no checkpoint '{which}'.", "Give a run folder before the @."
        )
    if path.suffix in WEIGHTS_ALONE and (path.is_file() or path.suffix != ".bin"):
        raise CaptuneError(
            f"{name} holds weights alone, not a model." if path.is_file() else f"There is no file {name}.",
            f"Make a model of it: captune convert {name} --like BASE_MODEL --out DIR"
            if path.is_file()
            else "Check the path; --model takes a folder, a run or a Hub id.",
        )
    if path.exists() or name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise CaptuneError(f"There is no model folder {name}.", "Check the path, or give a Hub id such as org/name.")
    return None
