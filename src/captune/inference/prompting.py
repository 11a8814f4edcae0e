"""The prompt of each image for a model: filled with what its file says, no longer than the model has room for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from captune.captions.prompts.choice import Prompts
from captune.captions.provenance import Provenance, prompt_digest
from captune.core.options import GenerationOptions
from captune.decoding.encoding import TextCodec


@dataclass(frozen=True)
class ImagePrompts:
    """Prompts of images for a model that reads them by `codec`, with room for captions as `options` want them."""

    prompts: Prompts
    codec: TextCodec
    options: GenerationOptions

    @property
    def vary(self) -> bool:
        """Whether images may have different prompts."""
        return self.prompts.vary

    @property
    def fields(self) -> frozenset[str]:
        """The fields that are read of images."""
        return self.prompts.fields

    def read(self, source: Any, name: str, question: str = "") -> str | None:
        """The prompt of an image: of its path or bytes, or one that Pillow opened; None: the model's own."""
        from captune.images.metadata.fields import read_fields

        return self._text(name, lambda fields: read_fields(source, name, fields), question)

    def filled(self, name: str, values: Mapping[str, str]) -> str | None:
        """The prompt of an image of which the values of `fields` are known."""
        return self._text(name, lambda fields: values, "")

    def noted(self, provenance: Provenance | None, prompt: str | None) -> Provenance | None:
        """What a row notes: of a prompt that is not the same for all (None: it is), its own digest."""
        if provenance is None or prompt is None:
            return provenance
        return replace(provenance, prompt=prompt_digest(prompt, self.options.system_prompt, self.options.prefill))

    def _text(self, name: str, read: Callable[[frozenset[str]], Mapping[str, str]], question: str) -> str | None:
        return self.prompts.text(name, read, self._fits, question)

    def _fits(self, prompt: str) -> bool:
        return self.codec.under(self.options).token_budget(prompt) >= self.options.max_new_tokens
