"""Fused layers for inference: weights in the number type they run in, packed for oneDNN where that is faster."""

import copy
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Layers = TypeVar("Layers")
# transformers' names of activations by ours: what oneDNN computes in the same step, and what torch does.
GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
ACTIVATIONS = frozenset((*GELU, "quick_gelu", "relu", ""))


def contiguous_head(model: Any) -> None:
    """Have the layer that writes a model's logits read its input in one piece, whoever calls it.

    `transformers` gives it the last places of every row as a view (`logits_to_keep`). For a view of 16-bit numbers
    torch copies the weights, vocabulary × width, once for every row on a CPU: gigabytes, and fifty times the time.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if isinstance(head, nn.Module):
        head.register_forward_pre_hook(_in_one_piece)


def _in_one_piece(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.contiguous() if isinstance(value, Tensor) else value for value in inputs)


class FusedLinear:
    """One or more linear layers over the same input as one, with an activation behind it if it is given.

    `weight` of a convolution whose patches do not overlap works as well: its input is then
    a row of values for each patch. `activation` has transformers' name for it.
    """

    def __init__(self, *layers: Any, dtype: torch.dtype, activation: str = "") -> None:
        weights = [_weight(layer).to(dtype) for layer in layers]
        biases = [
            torch.zeros(len(weight), device=weight.device) if layer.bias is None else layer.bias.detach()
            for layer, weight in zip(layers, weights, strict=True)
        ]
        self.activation = activation
        self.weight: Tensor | None = weights[0] if len(weights) == 1 else torch.cat(weights)
        self.bias = (biases[0] if len(biases) == 1 else torch.cat(biases)).to(dtype)
        self.packed = _pack_for_onednn(self.weight)
        if self.packed is not None and (dtype == torch.bfloat16 or not _mkl_is_fast()):
            self.weight = None  # never needed again

    def __call__(self, values: Tensor) -> Tensor:
        if self.packed is not None and (self.weight is None or _few_rows(values)):
            fused = "gelu" if self.activation in GELU else "none"
            output = torch.ops.mkldnn._linear_pointwise(
                values, self.packed, self.bias, fused, [], GELU.get(self.activation, "")
            )
            return output if fused == "gelu" else activate(self.activation, output)
        assert self.weight is not None, "a weight that is not packed stays"
        return activate(self.activation, functional.linear(values, self.weight, self.bias))


def activate(name: str, values: Tensor) -> Tensor:
    """One of `ACTIVATIONS`."""
    if name in GELU:
        return functional.gelu(values, approximate=GELU[name])
    if name == "quick_gelu":
        return values * torch.sigmoid(1.702 * values)
    return functional.relu(values) if name == "relu" else values


class LayerNorm:
    """A layer norm."""

    def __init__(self, layer: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.shape, self.eps = layer.normalized_shape, layer.eps
        self.weight, self.bias = layer.weight.detach().to(dtype), layer.bias.detach().to(dtype)

    def __call__(self, values: Tensor) -> Tensor:
        return functional.layer_norm(values, self.shape, self.weight, self.bias, self.eps)


class FusedSequential:
    """Layers one behind the other."""

    def __init__(self, *layers: Callable[[Tensor], Tensor]) -> None:
        self.layers = layers

    def __call__(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            values = layer(values)
        return values


def with_plain_weights(part: Layers) -> Layers:
    """The same layers with plain weights in place of oneDNN's blocks, which no exporter reads.

    `part` is a layer, or what holds layers: `FusedSequential`, a text decoder, a dataclass, a list, a tuple.
    """
    if isinstance(part, (list, tuple)):
        return type(part)(with_plain_weights(each) for each in part)
    if isinstance(part, FusedLinear):
        plain = copy.copy(part)
        if plain.weight is None and plain.packed is not None:
            plain.weight = plain.packed.to_dense()
        plain.packed = None
        return plain
    if is_dataclass(part) or hasattr(part, "layers"):
        plain_part = copy.copy(part)
        names = [field.name for field in fields(part)] if is_dataclass(part) else list(vars(part))
        for name in names:
            setattr(plain_part, name, with_plain_weights(getattr(part, name)))
        return plain_part
    return part


def _weight(layer: Any) -> Tensor:
    """The weight (out, in) of a linear layer, of GPT-2's transposed one or of a patch convolution, adapters added."""
    weight = layer.weight.detach()
    for adapter in getattr(layer, "active_adapters", ()):
        if not layer.merged and adapter in layer.lora_A:
            weight = weight + layer.get_delta_weight(adapter)
    plain = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    return (weight.t() if type(plain).__name__ == "Conv1D" else weight).flatten(1)


def _pack_for_onednn(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's blocks, or None where that is not to be had.

    Measured on one and two cores: bf16 always wins by it (1.1 to 4 times); fp32 wins 2 to 6
    times where MKL does not know the processor's vector units (AMD), and on Intel's for a
    few rows, not for one or for hundreds.
    """
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)


def _few_rows(values: Tensor) -> bool:
    return 2 <= values.numel() // values.shape[-1] <= 64


@cache
def _mkl_is_fast() -> bool:
    """Whether torch's other matrix products are quick here: MKL on a processor of its maker."""
    about = Path("/proc/cpuinfo")
    maker = about.read_text(encoding="utf-8", errors="replace") if about.is_file() else ""
    return torch.backends.mkl.is_available() and "AuthenticAMD" not in maker


def split_heads(rows: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(images, rows, parts · width) to `parts` of (images, heads, rows, head width)."""
    images, steps, _ = rows.shape
    return rows.view(images, steps, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def join_heads(attended: Tensor) -> Tensor:
    """The heads of (images, heads, rows, head width) side by side."""
    return attended.transpose(1, 2).flatten(2)
