"""A model whose captions fit a JSON Schema: it is told the schema, its answers are checked, and tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from captune.captions.structure import Structure, UnstructuredError
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import MOST_NEW_TOKENS, GenerationOptions
from captune.core.options.structure import StructureOptions
from captune.core.options.verbs import Config
from captune.core.records import Caption
from captune.decoding.encoding import TextCodec
from captune.images.batches import stack
from captune.images.preprocessing import Preprocessing
from captune.inference.captioning import AnsweringModel, CaptioningModel, NoCaptionError

# An object takes more tokens than a sentence.
GENERATION = {"max_new_tokens": MOST_NEW_TOKENS}
# Another attempt is sampled: the likeliest answer was refused.
_TEMPERATURE = 0.7


def structure_of(values: Config) -> Structure | None:
    """The schema that the options of a verb name; raises `UsageError` where captions could not fit it."""
    options = getattr(values, "structure", StructureOptions())
    if options.schema is None:
        return None
    if values.translation.language not in (None, "en"):
        raise UsageError(
            "Fields of a --schema are not translated.", "Leave out --language, and name the language in the --prompt."
        )
    return Structure.read(options.schema)


def structured(model: CaptioningModel, name: str, structure: Structure, retries: int) -> StructuredModel:
    """A model with answers of a schema; raises `UsageError` for one that does not answer."""
    if not model.codec.answers:
        raise UsageError(
            f"{name} continues its prompt and answers no questions: its captions have no fields.",
            "Take a vision-language model, or a model behind a server, or leave out --schema.",
        )
    if isinstance(model, AnsweringModel):
        model.constrain(structure.schema)
        return AnsweringStructuredModel(model, structure, retries)
    return StructuredModel(model, structure, retries)


@dataclass(frozen=True)
class _Refused:
    """A caption that does not fit, and why."""

    reason: str


@dataclass(frozen=True)
class StructuredModel:
    """A `CaptioningModel` around another: each caption has fields, or the image has the reason why not."""

    model: Any
    structure: Structure
    retries: int

    @property
    def family(self) -> str:
        return self.model.family

    @property
    def prompt(self) -> str:
        return self.model.prompt

    @property
    def generation(self) -> Mapping[str, Any]:
        return {**self.model.generation, **GENERATION}

    @property
    def pixels(self) -> Preprocessing:
        return self.model.pixels

    @property
    def device(self) -> str:
        return self.model.device

    @property
    def precision(self) -> str:
        return self.model.precision

    @property
    def decoder(self) -> str:
        return self.model.decoder

    @property
    def weights(self) -> int:
        return self.model.weights

    @property
    def codec(self) -> TextCodec:
        return self.model.codec

    def image_tokens(self, width: int, height: int) -> int:
        return self.model.image_tokens(width, height)

    def generate(
        self,
        inputs: np.ndarray,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Any, Any], None] | None = None,
    ) -> list[list[Caption] | CaptuneError]:
        """Captions of each image, or why none fits; they come whole: `on_token` is not called."""
        check_options(options)
        own = list(prompts) if prompts is not None else [options.prompt] * len(inputs)
        results: list[list[Caption] | CaptuneError | _Refused] = [_Refused("")] * len(inputs)
        for attempt in range(1 + self.retries):
            todo = [index for index, each in enumerate(results) if isinstance(each, _Refused)]
            if not todo:
                break
            found = self.model.generate(
                inputs if len(todo) == len(inputs) else stack([inputs[index] for index in todo]),
                attempt_options(options, attempt),
                prompts=[self._prompt(own[index], results[index]) for index in todo],
            )
            for index, each in zip(todo, found, strict=True):
                results[index] = self._checked(each)
        return [self._result(each) for each in results]

    def _prompt(self, prompt: str | None, earlier: Any) -> str:
        failure = earlier.reason if isinstance(earlier, _Refused) and earlier.reason else None
        return self.structure.prompt(self.model.prompt if prompt is None else prompt, failure)

    def _checked(self, found: list[Caption] | CaptuneError) -> list[Caption] | CaptuneError | _Refused:
        if isinstance(found, CaptuneError):
            return found
        caption = found[0]
        try:
            fields = self.structure.fields_in(caption.text)
        except UnstructuredError as error:
            return _Refused("it was cut at --max-new-tokens" if caption.cut else str(error))
        return [replace(caption, text=self.structure.text_of(fields), fields=fields)]

    def _result(self, found: list[Caption] | CaptuneError | _Refused) -> list[Caption] | CaptuneError:
        if not isinstance(found, _Refused):
            return found
        times = f" after {1 + self.retries} attempts" if self.retries else ""
        return NoCaptionError(f"the answer does not fit the schema{times}: {found.reason}", "")


@dataclass(frozen=True)
class AnsweringStructuredModel(StructuredModel):
    """The same of an `AnsweringModel`: each image by itself, each attempt a request."""

    @property
    def concurrency(self) -> int:
        return self.model.concurrency

    def keeping(self, file: Path) -> AbstractContextManager[None]:
        return self.model.keeping(file)

    def constrain(self, schema: Mapping[str, Any]) -> None:
        self.model.constrain(schema)

    def generate(
        self,
        inputs: np.ndarray,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Any, Any], None] | None = None,
    ) -> list[list[Caption] | CaptuneError]:
        own = list(prompts) if prompts is not None else [options.prompt] * len(inputs)
        work = [self.submit(pixels, options, prompt) for pixels, prompt in zip(inputs, own, strict=True)]
        try:
            return [each.result() for each in work]
        finally:
            for each in work:
                each.cancel()

    def submit(
        self, pixels: np.ndarray, options: GenerationOptions, prompt: str | None = None
    ) -> Future[list[Caption] | CaptuneError]:
        check_options(options)
        result: Future[list[Caption] | CaptuneError] = Future()
        self._attempt(result, pixels, options, options.prompt if prompt is None else prompt, _Refused(""), 0)
        return result

    def _attempt(
        self,
        result: Future[list[Caption] | CaptuneError],
        pixels: np.ndarray,
        options: GenerationOptions,
        prompt: str | None,
        earlier: _Refused,
        number: int,
    ) -> None:
        work = self.model.submit(pixels, attempt_options(options, number), self._prompt(prompt, earlier))
        result.add_done_callback(lambda done: work.cancel() if done.cancelled() else None)

        def arrived(done: Future[list[Caption] | CaptuneError]) -> None:
            with suppress(InvalidStateError):  # nobody waits for it any more
                if done.cancelled():
                    result.cancel()
                    return
                try:
                    found = self._checked(done.result())
                    if isinstance(found, _Refused) and number < self.retries and not result.cancelled():
                        self._attempt(result, pixels, options, prompt, found, number + 1)
                    else:
                        result.set_result(self._result(found))
                except Exception as error:  # whatever ends the work of the model  # noqa: BLE001
                    result.set_exception(error)

        work.add_done_callback(arrived)


def attempt_options(options: GenerationOptions, number: int) -> GenerationOptions:
    """The options of an attempt: those after the first are sampled, each with a seed of its own."""
    if not number:
        return options
    seed = (options.sample_seed or 0) + number
    temperature = options.temperature if options.sample else _TEMPERATURE
    return options.model_copy(update={"sample": True, "temperature": temperature, "num_beams": 1, "sample_seed": seed})


def check_options(options: GenerationOptions) -> None:
    """Raise `UsageError` for what does not go with a schema."""
    if options.num_captions > 1 or options.variations:
        raise UsageError("With --schema an image has one caption.", "Leave out --num-captions and --variations.")
    if options.prompt_in_caption:
        raise UsageError("With --schema a caption does not begin with its prompt.", "Leave out --prompt-in-caption.")
