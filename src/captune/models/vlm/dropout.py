"""Dropout of a language model: most have it in their attention alone, which small ones learn by heart with."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

# What is added to the residual stream: embeddings, and the last matrices of attention and of the feed-forward part.
ADDED = ("embed_tokens", "o_proj", "down_proj")


def set_dropout(language_model: nn.Module, config: Any, probability: float) -> None:
    """Set the dropout of a language model in its attention and of what is added to its residual stream.

    Its `config` holds it (`attention_dropout`, `residual_stream_dropout`), and is saved with the model; `transformers`
    alone knows the first.
    """
    config.attention_dropout = probability
    for module in language_model.modules():
        if hasattr(module, "attention_dropout") and getattr(module, "config", None) is config:
            module.attention_dropout = probability  # type: ignore[assignment]
    begun = hasattr(config, "residual_stream_dropout")
    config.residual_stream_dropout = probability
    if not begun:
        restore_dropout(language_model, config)


def restore_dropout(language_model: nn.Module, config: Any) -> None:
    """The dropout of what is added to the residual stream, as a loaded configuration has it."""
    if hasattr(config, "residual_stream_dropout"):
        for name, module in language_model.named_modules():
            if name.rpartition(".")[2] in ADDED:
                module.register_forward_hook(partial(_drop, config))


def _drop(config: Any, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return functional.dropout(output, config.residual_stream_dropout, module.training)
