"""`captune convert`: weights alone, from a training script, made into a model folder."""

import os
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from captune.core.errors import CaptuneError, UsageError, first_line
from captune.core.files import atomic_folder, check_free, read_json
from captune.core.model_names import is_new, is_pair
from captune.core.progress import SILENT, Progress
from captune.models.backbone import Backbone
from captune.models.loading.loader import load_backbone, pair_backbone
from captune.models.loading.pretrained import pretrained
from captune.models.weights import UNUSED

# What wrappers put before a name (DistributedDataParallel, torch.compile), wherever in it.
WRAPPERS = ("module", "_orig_mod")
# Levels of nested mappings that are searched: Lightning and others nest no deeper.
MAX_DEPTH = 3
# Names in a message.
SHOWN = 5
# Names of buffers that older versions of transformers saved, and present ones make.
MADE_ANEW = ("position_ids", ".attn.bias", ".attn.masked_bias", ".crossattention.bias", ".crossattention.masked_bias")
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_RESAVE = (
    "Where it was trained, save the weights alone: torch.save(model.state_dict(), 'weights.pt'); "
    "or of the file, if you trust it: "
    "torch.save(torch.load(FILE, weights_only=False)['model_state_dict'], 'weights.pt')"
)
# How files of torch.save begin: an archive, or a pickle of protocol 2 or later.
_BEGINNINGS = (b"PK", b"\x80")
# What torch raises for bytes that are no whole file.
_OF_BROKEN_FILES = (
    SafetensorError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True)
class StateDict:
    """Named tensors; `key` is where in the file they were (empty: at its top), `others` what else it holds."""

    tensors: dict[str, Tensor]
    key: str = ""
    others: tuple[str, ...] = ()


def read_states(path: Path) -> list[StateDict]:
    """Every mapping of names to tensors in a file or a folder of weights, the largest first.

    Raises `CaptuneError` where it cannot be read without running code that it holds, or holds no weights.
    """
    content: Any = {}
    for file in _files(path):
        read = _read(file)
        content = read if not content else {**content, **read}
    states = sorted(_states(content, "", 0), key=lambda state: len(state.tensors), reverse=True)
    if not states:
        kind = type(content).__name__
        names = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else f"a {kind}"
        raise CaptuneError(f"{path} holds no weights by name, but {names or 'nothing'}.", _RESAVE)
    return states


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for name in _FOLDER_FILES:
        index = path / f"{name}.index.json"
        if (path / name).is_file():
            return [path / name]
        if index.is_file():
            return [path / part for part in sorted(set(read_json(index)["weight_map"].values()))]
    raise CaptuneError(f"The folder {path} holds no weights.", f"It needs one of {', '.join(_FOLDER_FILES)}.")


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_beginning(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise CaptuneError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from None
    except pickle.UnpicklingError as error:
        raise _unsafe(path, str(error)) from None
    except _OF_BROKEN_FILES as error:
        # Without where in torch it was noticed, and its guesses why.
        first = re.sub(r"^\[enforce fail.*?\] \. ", "", first_line(error)).partition(". ")[0].rstrip(".")
        raise CaptuneError(f"{path} is no whole file of weights: {first}.", "Copy or save it again.") from None


def _check_beginning(path: Path) -> None:
    """Raises `CaptuneError` for what begins like no file of torch.save: a page, a text, an archive of another tool."""
    with open(path, "rb") as file:
        head = file.read(40)
    if head.startswith(b"version https://git-lfs"):
        raise CaptuneError(f"{path} is a pointer of Git LFS, not the file.", "Fetch it: git lfs pull")
    if not head:
        raise CaptuneError(f"{path} is empty.", "Copy or save it again.")
    if not head.startswith(_BEGINNINGS):
        page = head.lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "is a web page, not the file" if page else "is no file of torch.save"
        raise CaptuneError(f"{path} {what}.", "Copy or save it again." if not page else "Download it again.")


def _unsafe(path: Path, message: str) -> CaptuneError:
    names = re.findall(r"(?:GLOBAL|global:?(?: GLOBAL)?) ([\w.]+)", message)
    if not names:
        return CaptuneError(f"{path} is no file that torch reads.", "Copy or save it again.")
    return CaptuneError(
        f"{path} holds more than weights and numbers ({names[0]}): reading it would run code that the file names.",
        _RESAVE,
    )


def _states(content: Any, key: str, depth: int) -> Iterator[StateDict]:
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    others = {str(name): value for name, value in content.items() if not isinstance(value, Tensor)}
    if any("." in name for name in tensors):
        yield StateDict(tensors, key, tuple(map(_as_text, others.items())))
    for name, value in others.items() if depth < MAX_DEPTH else ():
        for state in _states(value, f"{key}.{name}" if key else name, depth + 1):
            siblings = tuple(_as_text(pair) for pair in others.items() if pair[0] != name)
            yield replace(state, others=(*state.others, *siblings))


def _as_text(pair: tuple[str, Any]) -> str:
    name, value = pair
    return f"{name} = {value}" if isinstance(value, (int, float, str)) and len(str(value)) < 40 else name


@dataclass(frozen=True)
class Matched:
    """A state dict with the names of a model, `count` of which it has; its own names had the `prefix`."""

    state: StateDict
    tensors: dict[str, Tensor]
    count: int
    prefix: str


def match(states: list[StateDict], names: Mapping[str, Any]) -> Matched:
    """The state dict with most of the `names`, after a prefix is removed from its own or put before them."""

    def candidates() -> Iterator[Matched]:
        for state in states:
            plain = {_unwrapped(name): value for name, value in state.tensors.items()}
            for removed in _prefixes(plain):
                for added in _prefixes(names) if not removed else [""]:
                    renamed = {_known(added + name.removeprefix(removed), names): each for name, each in plain.items()}
                    yield Matched(state, renamed, sum(name in names for name in renamed), removed)

    return max(candidates(), key=lambda matched: matched.count)


def _names(model: Any) -> dict[str, Tensor]:
    """Weights without values by the names that a model has in memory, and by those under which it is saved."""
    from transformers.core_model_loading import revert_weight_conversion

    own = {name: value.to("meta") for name, value in model.state_dict().items()}
    return {**own, **revert_weight_conversion(model, own)}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _known(name: str, names: Mapping[str, Any]) -> str:
    """A name as the model has it: files have `vision_model` in a CLIP or SigLIP where `transformers` 5 does not."""
    short = name.replace("encoder.vision_model.", "encoder.", 1)
    return short if name not in names and short in names else name


def _prefixes(names: Mapping[str, Any]) -> list[str]:
    """The beginnings of names, up to their third dot, none first."""
    prefixes = {""}
    for name in names:
        parts = name.split(".")[:-1]
        prefixes.update(".".join(parts[:count]) + "." for count in range(1, min(3, len(parts)) + 1))
    # Those that many names share; what a few layers begin with is no prefix of a model.
    shared = [p for p in prefixes if not p or sum(name.startswith(p) for name in names) >= len(names) / 4]
    return sorted(shared, key=len)


@dataclass(frozen=True)
class Converted:
    """A model folder made of weights.

    `place` is where in the file the weights were, `prefix` what was removed from their names, `also` what else the file
    holds; `matched` counts weights that were used; `unused` names those that the model has no place for, `kept` those
    that the file lacks and that stayed as in the model `like` (with `partial`).
    """

    folder: str
    family: str
    like: str
    place: str
    prefix: str
    matched: int
    unused: tuple[str, ...]
    kept: tuple[str, ...]
    also: tuple[str, ...]


def convert(
    file: str | os.PathLike[str],
    like: str,
    out: str | os.PathLike[str],
    *,
    partial: bool = False,
    progress: Progress = SILENT,
) -> Converted:
    """Write a model folder `out` of the weights in `file` and everything else of the model `like`.

    `file` is what `torch.save` or safetensors wrote (a state dict, or a checkpoint that holds one), or a folder with
    such a file. It is read without running code. `like` is a model of the same make: a folder, a run, a Hub id or
    `VISION+TEXT`. With `partial`, weights that the file lacks stay those of `like`. Raises `CaptuneError` where weights
    are missing, have other shapes or are not finite.
    """
    path = Path(file).expanduser()
    if not path.exists():
        raise CaptuneError(f"There is no file {file}.", "Check the path.")
    if is_new(like):
        raise UsageError(
            f"{like} has no tokenizer yet.", "Name the model that the training began with: a folder, a Hub id."
        )
    check_free(Path(out).expanduser())
    with progress.task(f"Reading {path.name}"):
        states = read_states(path)
    with progress.task(f"Loading {like}"):
        base = pair_backbone(like, seed=0, image_size=None) if is_pair(like) else load_backbone(like)
    matched = match(states, _names(base.model))
    _check_kind(matched, path, like)
    model, unused, missing = _with_weights(base, matched, path, like, partial=partial)
    with atomic_folder(out) as stage, progress.task(f"Writing {out}"):
        replace(base, model=model).save(stage)
    return Converted(
        folder=str(out),
        family=base.family,
        like=like,
        place=matched.state.key,
        prefix=matched.prefix,
        matched=len(matched.tensors) - len(unused),
        unused=unused,
        kept=missing,
        also=matched.state.others,
    )


def _check_kind(matched: Matched, path: Path, like: str) -> None:
    adapters = [name for name in matched.tensors if ".lora_" in name]
    if adapters:
        raise CaptuneError(
            f"{path} holds LoRA adapters ({adapters[0]}), not the weights of a model.",
            "Merge them where they were trained: model.merge_and_unload().save_pretrained(…).",
        )
    if not matched.count:
        examples = ", ".join(list(matched.tensors)[:3])
        raise CaptuneError(
            f"None of the {len(matched.tensors)} weights in {path} ({examples} …) is one of {like}.",
            "Name a model of the same make with --like; layers of a class of your own have no place in any.",
        )


def _with_weights(
    base: Backbone, matched: Matched, path: Path, like: str, *, partial: bool
) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The model with the matched weights, the names of those without a use, and of those that it has and they lack."""
    wrong = [
        name for name, value in matched.tensors.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if wrong:
        raise CaptuneError(
            f"{path} holds weights that are not finite: {_listed(wrong)}.", "Take an earlier checkpoint."
        )
    floating = [value.dtype for value in matched.tensors.values() if value.is_floating_point()]
    dtype = max(set(floating), key=floating.count, default=torch.float32)
    own = base.model.state_dict()
    # Where names are the model's own, shapes are compared here, for a clear message; transformers renames the others.
    shapes = [n for n, value in matched.tensors.items() if n in own and value.shape != own[n].shape]
    if shapes:
        listed = _listed(f"{n} {tuple(matched.tensors[n].shape)}, there {tuple(own[n].shape)}" for n in shapes)
        raise CaptuneError(
            f"{len(shapes)} weights of {path} have another shape than in {like}: {listed}.",
            "Name a model of the same size, image size and vocabulary with --like.",
        )
    kind = type(base.model)
    model, loading_info = pretrained(
        kind, None, config=base.model.config, state_dict=matched.tensors, dtype=dtype, output_loading_info=True
    )
    missing = sorted(name for name in loading_info["missing_keys"] if not any(word in name for word in UNUSED))
    unused = tuple(sorted(n for n in loading_info["unexpected_keys"] if not n.endswith(MADE_ANEW)))
    if missing and not partial:
        raise CaptuneError(
            f"{path} lacks {len(missing)} of the {len(own)} weights of {like}: {_listed(missing)}."
            + (f" It has {len(unused)} that the model has no place for: {_listed(unused)}." if unused else ""),
            "Name the model it was trained from with --like; --partial takes what is missing from there.",
        )
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).copy_(base.model.get_parameter(name))
    model.generation_config = base.model.generation_config
    return model.eval(), unused, tuple(missing)


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f" … ({len(listed) - SHOWN} more)" if len(listed) > SHOWN else "")
