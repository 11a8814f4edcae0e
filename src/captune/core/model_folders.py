"""What a path is that holds no model captune can load: told by the files, with the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.parsed import parse_json

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
    if "adapter_config.json" in files:
        return _adapter_error(name, folder)
    inside = [path for path in sorted(folder.iterdir()) if (path / "config.json").is_file() or _is_run(path)]
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
    config = _read(folder / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    of = f"of {base}" if base else "of a model that it does not name"
    return CaptuneError(
        f"{name} holds adapters ({config.get('peft_type', 'peft')}) {of}, not a whole model: it has no config.json.",
        f"Add them to their model with peft, then give DIR: {_MERGE}",
    )


def _is_run(path: Path) -> bool:
    return (path / "manifest.json").is_file() and (path / "config.yaml").is_file()


def _read(file: Path) -> dict[str, Any]:
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
