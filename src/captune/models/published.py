"""What published folders hold beside their weights, in the layouts of several years of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.models.pretrained import pretrained

# Added to the tokenizer of a BLIP-2 that was saved before language models were told of images by a token.
IMAGE = "<image>"


def load_tokenizer(source: str | Path, **hub: Any) -> Any:
    """The tokenizer of a folder or Hub id; raises `CaptuneError` where it has none.

    `transformers` then makes one that knows no words, and says nothing about it.
    """
    from transformers import AutoTokenizer

    tokenizer = pretrained(AutoTokenizer, source, **hub)
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise CaptuneError(
            f"{source} holds no tokenizer: no vocabulary was found beside the weights.",
            f"Copy the tokenizer's files of the model that it was made of; or: {convert_command(source)}",
        )
    return tokenizer


def load_processor(source: str | Path, **hub: Any) -> Any:
    """The image processor of a folder or Hub id; raises `CaptuneError` where a folder holds none."""
    from transformers import AutoImageProcessor

    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _PROCESSORS):
        raise CaptuneError(
            f"{source} does not say how its images are prepared: there is no {_PROCESSORS[0]}.",
            f"Copy that file of the model that it was made of; or: {convert_command(source)}",
        )
    return pretrained(AutoImageProcessor, source, backend="pil", **hub)


_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def convert_command(source: str | Path) -> str:
    """The command that makes a whole model of weights alone."""
    return f"captune convert {source} --like BASE_MODEL --out DIR"


def with_image_token(model: Any, tokenizer: Any) -> None:
    """Give a BLIP-2 of before 2024 the token that stands for images, as `transformers` writes it today.

    It is the first id behind the words; embeddings are made more only where they are too few for it.
    """
    config = model.config
    if config.image_token_id is None:
        tokenizer.add_tokens([IMAGE], special_tokens=True)
        config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    if config.image_token_id >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(config.image_token_id + 1)
