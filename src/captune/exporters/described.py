"""What stands beside the two graphs of an export: the model's facts, and its tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

import captune
from captune.core.errors import CaptuneError
from captune.core.exported import TOKENIZER, Exported, ExportedPixels
from captune.core.files import write_text
from captune.exporters.graphs import Graphs
from captune.models.backbone import Backbone


def describe(backbone: Backbone, graphs: Graphs, *, model: str, target: str, precision: str, opset: int) -> Exported:
    """The facts of a model loaded by the name `model`; its check is still empty."""
    pixels = backbone.pixels
    return Exported(
        family=backbone.family,
        model=model,
        digest=digest(backbone.model),
        target=target,
        precision=precision,
        pixels=ExportedPixels(pixels.size, pixels.resample, pixels.shorter, tuple(pixels.mean), tuple(pixels.std)),
        start=backbone.bos_token_id,
        end=backbone.eos_token_id,
        pad=backbone.pad_token_id,
        longest=backbone.max_length,
        prompt=backbone.prompt,
        generation=dict(backbone.generation),
        layers=graphs.layers,
        heads=graphs.heads,
        head_width=graphs.head_width,
        places=graphs.places,
        vocabulary=graphs.vocabulary,
        clean_up=cleans_up(backbone.tokenizer),
        opset=opset,
        captune=captune.__version__,
    )


def digest(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights with their names, in order."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """`tokenizer.json`, as the package `tokenizers` reads it; it pads and cuts nothing.

    Raises `CaptuneError` for a tokenizer that is written in Python.
    """
    words = getattr(tokenizer, "backend_tokenizer", None)
    if words is None:
        raise CaptuneError(
            f"The tokenizer of this model ({type(tokenizer).__name__}) is not one of the package tokenizers.",
            "Save the model with a fast tokenizer, then export it.",
        )
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(words.to_str())
    plain.no_padding()
    plain.no_truncation()
    write_text(folder / TOKENIZER, plain.to_str())


def cleans_up(tokenizer: Any) -> bool:
    """Whether `transformers` takes spaces before punctuation out of what this tokenizer decodes.

    For byte-pair encodings it ignores the setting, unless it is told not to.
    """
    kind = type(tokenizer.backend_tokenizer.model).__name__
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return bool(tokenizer.clean_up_tokenization_spaces) and (kind != "BPE" or bool(forced))
