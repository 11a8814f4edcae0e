"""How a model is named: a folder, a run, a checkpoint, a Hub id, or a model from scratch; and what a wrong path is."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from captune.core.endpoints import is_endpoint
from captune.core.errors import CaptuneError, UsageError, did_you_mean, nearest, question
from captune.core.exported import export_folder
from captune.core.files.limits import parse_json
from captune.core.runs import Run

# Files of weights without a configuration beside them: torch's, TensorFlow's, Flax's.
TORCH_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".safetensors")
WEIGHTS = (*TORCH_WEIGHTS, ".h5", ".msgpack")
LLAMA_CPP = (".gguf", ".ggml")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".zst")
_LAYOUT = "Give a run folder, a model folder in the Hub's layout, or a Hub id."
_MERGE = "PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(DIR)"


def folder_error(name: str, folder: Path) -> CaptuneError:
    """Why a folder without `config.json` is no model."""
    files = sorted(path.name for path in folder.iterdir())
    if "model_index.json" in files:
        kind = _read(folder / "model_index.json").get("_class_name", "diffusers")
        return CaptuneError(
            f"{name} is a diffusers pipeline ({kind}): it draws images and writes no captions.", _LAYOUT
        )
    if ADAPTER_CONFIG in files:
        return _adapter_error(name, folder)
    inside = [path for path in sorted(folder.iterdir()) if (path / "config.json").is_file() or Run.is_run(path)]
    if inside:
        listed = ", ".join(str(path) for path in inside[:5]) + (" …" if len(inside) > 5 else "")
        return CaptuneError(f"The folder {name} holds no model itself: it has no config.json.", f"In it are: {listed}.")
    if "splits.json" in files:
        return CaptuneError(f"{name} is prepared data, not a model: it has no config.json.", _LAYOUT)
    weights = next((file for file in files if Path(file).suffix in (*WEIGHTS, *LLAMA_CPP)), None)
    if weights is not None:
        return CaptuneError(
            f"The folder {name} holds weights ({weights}) but not what they belong to: it has no config.json.",
            _next_step(folder / weights),
        )
    empty = "" if files else " (it is empty)"
    return CaptuneError(f"The folder {name} holds no model: it has no config.json{empty}.", _LAYOUT)


def file_error(name: str, file: Path) -> CaptuneError:
    """Why a file is no model."""
    if file.name == "config.json" or (file.parent / "config.json").is_file():
        return CaptuneError(f"{name} is one file of a model.", f"Name its folder: --model {file.parent}")
    kind = "an archive" if file.suffix in ARCHIVES else "a file"
    if file.suffix in LLAMA_CPP:
        kind = "a file of llama.cpp"
    elif file.suffix in WEIGHTS:
        kind = "a file of weights"
    return CaptuneError(f"{name} is {kind}, and a model is a folder with config.json.", _next_step(file))


def is_weights_name(name: str) -> bool:
    """Whether a name ends as files of weights do, so that it means a file and not a repository of the Hub."""
    return Path(name).suffix in {*WEIGHTS, *LLAMA_CPP} - {".bin"}


def _next_step(file: Path) -> str:
    if file.suffix in LLAMA_CPP:
        return "captune runs the weights such a file was made of: give their folder or Hub id."
    if file.suffix in ARCHIVES:
        return f"Unpack it, and give the folder with config.json. {_LAYOUT}"
    if file.suffix in TORCH_WEIGHTS:
        return f"Make a model of its weights: captune convert {file} --like BASE_MODEL --out DIR"
    return _LAYOUT


def _adapter_error(name: str, folder: Path) -> CaptuneError:
    if (folder.parent / "config.json").is_file():  # captune's own checkpoints hold the whole model
        return CaptuneError(f"{name} holds adapters alone.", f"The model with them is the folder: {folder.parent}")
    config = _read(folder / ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path")
    of = f"of {base}" if base else "of a model that it does not name"
    return CaptuneError(
        f"{name} holds adapters ({config.get('peft_type', 'peft')}) {of}, not a whole model: it has no config.json.",
        f"Add them to their model with peft, then give DIR: {_MERGE}",
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


NEW = "new:"
# What captune saves beside the weights: family, prompt, options of the search.
CARD = "captune.json"
# What it says of the model that adapters belong to, where they are saved without it.
BASE = "base"
# What peft saves beside adapters.
ADAPTER_CONFIG = "adapter_config.json"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")


def is_new(name: str) -> bool:
    """Whether `name` asks for a model from scratch (`new:blip-small`)."""
    return name.startswith(NEW)


def parse_new_name(name: str, sizes: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Family and size of a `new:` name, where `sizes` are those of every family; raises `UsageError`."""
    requested = name.removeprefix(NEW)
    family = max((each for each in sizes if requested.startswith(f"{each}-")), key=len, default="")
    size = requested.removeprefix(f"{family}-")
    if family and size in sizes[family]:
        return family, size
    known = {each: [f"{NEW}{each}-{size}" for size in sizes[each]] for each in sizes}
    if requested in sizes:
        raise UsageError(f"{name} names no size.", f"There are: {', '.join(known[requested])}.")
    if family:
        raise UsageError(f"There is no size '{size}' of {family}.", did_you_mean(name, known[family]))
    ends = sorted(
        {end for listed in sizes.values() for end in listed if requested.lower().endswith(f"-{end}")}, key=len
    )
    given = (requested[: -len(ends[-1]) - 1] if ends else requested.rpartition("-")[0]) or requested
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


def holds_adapters_alone(folder: Path) -> bool:
    """Whether captune saved adapters in a folder without the weights that they are added to."""
    return BASE in _read(folder / CARD) and (folder / ADAPTER_CONFIG).is_file()


def hub_name(name: str) -> tuple[str, str | None]:
    """Repository and revision (a branch, a tag, a commit) of a Hub id: `org/name@v1.0`; None where it names none."""
    repository, at, revision = name.partition("@")
    return (repository, revision) if at and revision else (name, None)


def local_folder(name: str) -> Path | None:
    """The folder that `name` stands for, or None for a Hub id, with a revision (`org/name@v1.0`) or without.

    `runs/x` is the best checkpoint of a run, `runs/x@last` (or @best-loss, @epoch-3,
    @checkpoint-100) another one. Raises `CaptuneError` for what is no model here, and none that the Hub may have.
    """
    if is_endpoint(name):
        raise CaptuneError(
            f"{name} is behind a server: it captions, but its weights, which this needs, are not here.",
            "Name the model's folder or its Hub id.",
        )
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
        if not (path / "config.json").is_file() and not holds_adapters_alone(path):
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
