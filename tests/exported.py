"""Tiny models with lively weights in folders, for tests of exports."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch.onnx._internal.exporter._registration import ONNXRegistry

from captune.export.graphs import Graph
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from random_weights import LIVELY

_read_operators = ONNXRegistry.from_torchlib
EXPORTABLE = ("blip", "clip-gpt2", "git")
# Of models that end their captions, and whose best tokens are never so near each other that rounding decides.
SEEDS = {"blip": 10, "clip-gpt2": 4, "git": 10}


def saved_model(family: str, folder: Path) -> Path:
    """A lively tiny model of a family, saved."""
    torch.manual_seed(SEEDS[family])
    made: Backbone = FAMILIES[family].tiny()
    made.model.eval()
    with torch.no_grad():
        LIVELY[family](made.model)
    made.save(folder)
    return folder


@cache
def operators(opset_version: int) -> Any:
    """What torch reads anew for each graph that it writes: how each of its operators is written as ONNX."""
    return _read_operators(opset_version)


def traced_once(folder: Path, write: Callable[..., None]) -> Callable[..., None]:
    """`onnx.write_graph` that takes most of an export's time, but copies from `folder` what was written before.

    Two graphs are one when they answer the same drawn inputs with the same numbers.
    """

    ONNXRegistry.from_torchlib = staticmethod(operators)

    def written(graph: Graph, path: Path, **asked: Any) -> None:
        if asked:
            write(graph, path, **asked)
            return
        made = folder / f"{fingerprint(graph)}.onnx"
        with FileLock(f"{made}.lock"):
            if not made.is_file():
                write(graph, made.with_suffix(".part"))
                made.with_suffix(".part").rename(made)
        shutil.copyfile(made, path)

    return written


def fingerprint(graph: Graph) -> str:
    chance = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(each.shape, generator=chance)
        if each.is_floating_point()
        else torch.randint(0, 9, each.shape, dtype=each.dtype, generator=chance)
        for name, each in graph.example.items()
    }
    found = hashlib.sha256(repr((graph.varying, graph.outputs)).encode())
    with torch.inference_mode():
        for each in (*graph.module(drawn), *graph.module.state_dict().values()):
            found.update(each.numpy().tobytes())
    return found.hexdigest()
