"""Encoded images as rows of 16-bit values, for the cache of features on disk.

A row holds the length of its description (two values), the description (JSON: texts and shapes), and the values of
all tensors: numbers with a fraction in bf16, whole numbers in 64 bits.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captune.core.errors import UsageError
from captune.models.vlm.images import EncodedImages, shared_features

WHOLE, FRACTION = "whole", "fraction"


def to_row(images: EncodedImages) -> np.ndarray:
    """One image, already encoded, as a row (values,), uint16; raises `UsageError` where more belongs to it."""
    (output,), (text,) = images.outputs, images.texts
    if shared_features(output):
        raise UsageError("Features of this kind of model cannot be cached.", "Leave out --cache-features.")
    values: list[np.ndarray] = []

    def shape_of(part: Any) -> Any:
        if not isinstance(part, Tensor):
            return [shape_of(one) for one in part]
        fraction = part.is_floating_point()
        plain = part.detach().to(torch.bfloat16 if fraction else torch.int64).contiguous().flatten()
        values.append(plain.view(torch.uint16).cpu().numpy())
        return {FRACTION if fraction else WHOLE: list(part.shape)}

    layers = getattr(output, "deepstack_features", None)
    described = {
        "text": text,
        "features": shape_of(output.pooler_output),
        "layers": None if layers is None else shape_of(layers),
        "inputs": {name: shape_of(value) for name, (value,) in images.inputs.items()},
    }
    data = json.dumps(described).encode()
    description = np.frombuffer(data + b" " * (len(data) % 2), np.uint16)
    length = np.array([len(description)], np.uint32).view(np.uint16)
    return np.concatenate([length, description, *values])


def of_rows(rows: Iterable[Tensor], dtype: torch.dtype) -> EncodedImages:
    """Images of their rows (values,), uint16, on any device; numbers with a fraction in `dtype`."""
    outputs, texts, inputs = [], [], []
    for row in rows:
        low, high = row[:2].tolist()
        length = low | high << 16
        described = json.loads(row[2 : 2 + length].cpu().numpy().tobytes())
        take = _reader(row[2 + length :], dtype)
        # In the order in which `to_row` wrote them.
        features = take(described["features"])
        layers = None if described["layers"] is None else take(described["layers"])
        outputs.append(_output(features, layers))
        texts.append(described["text"])
        inputs.append({name: take(shape) for name, shape in described["inputs"].items()})
    return EncodedImages(tuple(outputs), tuple(texts), {name: tuple(one[name] for one in inputs) for name in inputs[0]})


def _reader(values: Tensor, dtype: torch.dtype) -> Callable[[Any], Any]:
    """What takes tensors of described shapes from values, one behind the other."""
    at = 0

    def take(shape: Any) -> Any:
        nonlocal at
        if isinstance(shape, list):
            return [take(one) for one in shape]
        ((kind, sides),) = shape.items()
        size = int(np.prod(sides)) * (1 if kind == FRACTION else 4)
        part = values[at : at + size]
        at += size
        if kind == FRACTION:
            return part.view(torch.bfloat16).to(dtype).reshape(sides)
        return part.clone().view(torch.int64).reshape(sides)  # a copy begins where 64-bit numbers may begin

    return take


def _output(features: Any, layers: Any) -> Any:
    """As `get_image_features` gives it."""
    if layers is None:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=features)
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    return BaseModelOutputWithDeepstackFeatures(pooler_output=features, deepstack_features=layers)
