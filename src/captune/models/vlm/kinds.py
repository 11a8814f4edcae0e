"""Which kinds of models `vlm` runs, and what is missing of the others."""

from typing import Any

from transformers.processing_utils import ProcessorMixin

from captune.core.errors import CaptuneError
from captune.models.vlm.images import keywords
from captune.models.vlm.prefixes import PREFIXES

ANOTHER = "Serve it with vLLM or llama.cpp, or take a model of another kind: docs/models.md lists what was tried."


def check_kind(model: Any, processor: Any) -> None:
    """Raise `CaptuneError` for a class of models, or its processor, that lacks something `vlm` needs."""
    name: str = model.config_class.model_type
    if "mm_encoder_outputs" not in keywords(model.forward):
        raise CaptuneError(
            f"Models of the kind '{name}' do not read images that were encoded before, as tokens among those of the "
            "text: captune encodes an image once for all its captions.",
            ANOTHER,
        )
    written = getattr(type(processor), "replace_image_token", None) is not ProcessorMixin.replace_image_token
    if not written or not getattr(processor, "image_token", None):
        raise CaptuneError(
            f"The processor for models of the kind '{name}' ({type(processor).__name__}) does not say which tokens "
            "stand for an image.",
            ANOTHER,
        )
    if name not in PREFIXES and not processor.chat_template:
        raise CaptuneError(
            "The model has no chat template: how its authors asked it about images is not known.",
            "Take a checkpoint with one, such as an instruction-tuned one of its family, or put the template of its "
            "authors beside its weights: chat_template.jinja.",
        )
