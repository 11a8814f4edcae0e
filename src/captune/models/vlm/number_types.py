"""Number types of vision-language models: what stays as it is where the language model is quantized, and fp16."""

from collections.abc import Callable
from typing import Any

import torch

from captune.core.errors import UsageError

# Kinds whose values leave the range of fp16: every caption would be empty.
BEYOND_FP16 = frozenset(("gemma3", "gemma3n", "gemma4"))


def check_number_type(config: Any, dtype: torch.dtype) -> None:
    """Raise `UsageError` for a type in which a kind of model says nothing."""
    if dtype is torch.float16 and config.model_type in BEYOND_FP16:
        raise UsageError(
            f"Values of a {config.model_type} leave the range of fp16: its captions would be empty.",
            "Use --precision bf16, or fp32 on a card without bf16.",
        )


def unquantized(kind: Any, config: Any, part_of: Callable[[str], str]) -> list[str]:
    """Full names of the modules of `kind` that are no layers of the language model: its head, vision part, projector.

    A list of names to skip takes the place of what bitsandbytes would skip by itself, the head among it.
    """
    with torch.device("meta"):
        model = kind(config)
    head = model.get_output_embeddings()
    names: list[str] = []
    for name, module in model.named_modules():
        parts = {part_of(f"{name}.{inner}") for inner, _ in module.named_parameters()}
        inside = any(name.startswith(f"{outer}.") for outer in names)
        if name and not inside and parts and (module is head or "text" not in parts):
            names.append(name)
    return names
