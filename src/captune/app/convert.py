"""`captune convert`: weights alone, and a model like theirs, made into a model folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.core.errors import CaptuneError, UsageError, needing_torch
from captune.core.folders import atomic_folder, check_free
from captune.core.imports import gc_paused
from captune.core.model_names import is_new, is_pair
from captune.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from captune.engine.state_dicts import Matched
    from captune.models.backbone import Backbone

SHOWN = 5
# Names of buffers that older versions of transformers saved, and present ones make.
MADE_ANEW = ("position_ids", ".attn.bias", ".attn.masked_bias", ".crossattention.bias", ".crossattention.masked_bias")


@dataclass(frozen=True)
class Converted:
    """A model folder made of weights.

    `place` is where in the file the weights were, `prefix` what was taken from their names, `also` what else the file
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
    with needing_torch(), gc_paused():
        from captune.engine.loader import load_backbone, pair_backbone
        from captune.engine.state_dicts import match, read_states

    with progress.task(f"Reading {path.name}"):
        states = read_states(path)
    with progress.task(f"Loading {like}"):
        base = pair_backbone(like, seed=0, image_size=None) if is_pair(like) else load_backbone(like)
    found = match(states, base.model.state_dict())
    _check_kind(found, path, like)
    model, unused, kept = _with_weights(base, found, path, like, partial=partial)
    whole = replace(base, model=model)
    with atomic_folder(out) as stage, progress.task(f"Writing {out}"):
        whole.save(stage)
    return Converted(
        folder=str(out),
        family=base.family,
        like=like,
        place=found.state.place,
        prefix=found.taken,
        matched=len(found.tensors) - len(unused),
        unused=unused,
        kept=kept,
        also=found.state.also,
    )


def _check_kind(found: Matched, path: Path, like: str) -> None:
    adapters = [name for name in found.tensors if ".lora_" in name]
    if adapters:
        raise CaptuneError(
            f"{path} holds LoRA adapters ({adapters[0]}), not the weights of a model.",
            "Merge them where they were trained: model.merge_and_unload().save_pretrained(…).",
        )
    if not found.count:
        theirs = ", ".join(list(found.tensors)[:3])
        raise CaptuneError(
            f"None of the {len(found.tensors)} weights in {path} ({theirs} …) is one of {like}.",
            "Name a model of the same make with --like; layers of a class of your own have no place in any.",
        )


def _with_weights(
    base: Backbone, found: Matched, path: Path, like: str, *, partial: bool
) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The model with the weights that were found, the names of those it has no use for, and of those it kept."""
    import torch

    from captune.models.pretrained import pretrained
    from captune.models.weights import UNUSED

    wrong = [name for name, value in found.tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise CaptuneError(
            f"{path} holds weights that are not finite: {_listed(wrong)}.", "Take an earlier checkpoint."
        )
    floating = [value.dtype for value in found.tensors.values() if value.is_floating_point()]
    dtype = max(set(floating), key=floating.count, default=torch.float32)
    own = base.model.state_dict()
    # Where names are the model's own, a shape is compared here, with words; transformers renames the others.
    shapes = [n for n, value in found.tensors.items() if n in own and value.shape != own[n].shape]
    if shapes:
        listed = _listed(f"{n} {tuple(found.tensors[n].shape)}, there {tuple(own[n].shape)}" for n in shapes)
        raise CaptuneError(
            f"{len(shapes)} weights of {path} have another shape than in {like}: {listed}.",
            "Name a model of the same size, image size and vocabulary with --like.",
        )
    kind = type(base.model)
    model, told = pretrained(
        kind, None, config=base.model.config, state_dict=found.tensors, dtype=dtype, output_loading_info=True
    )
    missing = sorted(name for name in told["missing_keys"] if not any(word in name for word in UNUSED))
    unused = tuple(sorted(n for n in told["unexpected_keys"] if not n.endswith(MADE_ANEW)))
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
    found = list(names)
    return ", ".join(found[:SHOWN]) + (f" … ({len(found) - SHOWN} more)" if len(found) > SHOWN else "")
