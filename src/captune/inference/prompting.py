"""The prompt of each image for a model: filled with what its file says, no longer than the model has room for."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from captune.captions.prompts.choice import Prompts
from captune.captions.provenance import Provenance, prompt_digest
from captune.core.options import GenerationOptions
from captune.core.records import ImageRecord
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

    def filled(self, name: str, values: Mapping[str, str], question: str = "") -> str | None:
        """The prompt of an image of which the values of `fields` are known."""
        return self._text(name, lambda fields: values, question)

    def options_for(self, values: Mapping[str, str], question: str = "") -> GenerationOptions:
        """The options with the prompt of an image without a name, which has these values."""
        if not self.vary:
            return self.options
        return self.options.model_copy(update={"prompt": self.filled("", values, question)})

    def noted(self, provenance: Provenance | None, prompt: str | None) -> Provenance | None:
        """What a row notes: of a prompt that is not the same for all (None: it is), its own digest."""
        if provenance is None or prompt is None:
            return provenance
        return replace(provenance, prompt=prompt_digest(prompt, self.options.system_prompt, self.options.prefill))

    def _text(self, name: str, read: Callable[[frozenset[str]], Mapping[str, str]], question: str) -> str | None:
        return self.prompts.text(name, read, self._fits, question)

    def _fits(self, prompt: str) -> bool:
        return self.codec.under(self.options).token_budget(prompt) >= self.options.max_new_tokens


class PromptedModel(Protocol):
    """A model with a prompt of its own, which may be a template."""

    @property
    def prompt(self) -> str: ...

    @property
    def generation(self) -> Mapping[str, Any]: ...

    @property
    def codec(self) -> TextCodec: ...


def prompts_of_records(model: PromptedModel, records: Sequence[ImageRecord]) -> list[str]:
    """The model's own prompt for the image and the question of each record, as captions will have it later."""
    prompts = ImagePrompts(Prompts(None, model.prompt), model.codec, GenerationOptions(**model.generation))

    def prompt_of(record: ImageRecord) -> str:
        found = prompts.read(record.image, record.image, record.question)
        return prompts.codec.prompt if found is None else found

    if not prompts.fields:
        return list(map(prompt_of, records))
    with ThreadPoolExecutor(thread_name_prefix="captune-fields") as pool:  # it waits for files
        return list(pool.map(prompt_of, records))
