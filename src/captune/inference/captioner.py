"""`Captioner`: a loaded model as a function from images to captions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from captune.captions.prompts.choice import Choice, prompts_of
from captune.captions.prompts.styles import only_wording_note, style_of, styled, with_style
from captune.captions.provenance import Provenance, prompt_digest
from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError, UsageError, needing_torch
from captune.core.machine import LESS_MEMORY, Halving, OutOfMemory
from captune.core.options import DEFAULT_MODEL, WordingOptions
from captune.core.options.verbs import Config
from captune.core.progress import Progress
from captune.core.records import Caption
from captune.images.batches import read_pixels
from captune.inference.captioning import CaptioningModel, caption_stream, captions_or_reason
from captune.inference.loading import backbone_of, load_model
from captune.inference.pieces import stream_text
from captune.inference.prompting import ImagePrompts
from captune.inference.structured import StructuredModel, structure_of, structured

if TYPE_CHECKING:
    from captune.core.options import GenerationOptions
    from captune.images.attention_maps import CaptionAttention, Explained
    from captune.inference.inspect import Inspection
    from captune.inference.translation import Translator
    from captune.models.backbone import Backbone

Key = TypeVar("Key")
_EXPLAINING = "An attention map"


class Captioner:
    """A model on its device, ready to caption.

    `Captioner.load(name)(image).text` is the whole use; `name` is a folder, a run
    (`runs/x@best-loss`), a Hub id, or an export. Options are those of `captune caption --help`; those
    left out have the value that was saved with the model, else captune's default.
    """

    def __init__(self, name: str, model: CaptioningModel, config: Resolved) -> None:
        self.name, self.model, self.config = name, model, config
        self.options = with_style(config, model.generation, answers=model.codec.answers)
        self._translators: dict[str, Translator] = {}
        self._loading = Lock()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        config: Resolved | None = None,
        choices: tuple[Choice, ...] | None = None,
        **options: Any,
    ) -> Captioner:
        """Load a model once; raises `CaptuneError` where that is not possible. `choices` as in `Prompts.of`."""
        config = config or resolve("caption", environment=os.environ, flags=options)
        prompts_of(config.values, choices=choices)  # a field that there is not stops here, before the model is loaded
        structure = structure_of(config.values)
        loaded = load_model(str(model), config.values)
        if structure is not None:
            loaded = structured(loaded, str(model), structure, config.values.structure.schema_retries)
        captioner = cls(str(model), loaded, config)
        captioner.translator(config.values)
        return captioner

    @property
    def backbone(self) -> Backbone:
        """The torch model; raises `CaptuneError` for an export."""
        return backbone_of(self.model, self.name, "This")

    def __call__(self, image: Any, **options: Any) -> Caption:
        """The best caption of one image: a path, bytes, or a PIL image."""
        return self.captions(image, **options)[0]

    def captions(self, image: Any, **options: Any) -> list[Caption]:
        """All captions of one image that the options ask for, the best first."""
        return self.batch([image], **options)[0]

    def batch(self, images: Iterable[Any], **options: Any) -> list[list[Caption]]:
        """Captions of many images; the same as one by one. An unreadable image raises."""
        results = []
        for _, captions in self.stream(((None, image) for image in images), **options):
            if isinstance(captions, CaptuneError):
                raise captions
            results.append(captions)
        return results

    def read(self, image: Any) -> np.ndarray:
        """The pixels (3, size, size), uint8, that the model sees of an image; raises `ImageError`. Any thread may."""
        return read_pixels(image, self.model.pixels, self.options.caption.max_pixels)

    def generate(
        self, pixels: np.ndarray, options: GenerationOptions, prompts: Sequence[str | None] | None = None
    ) -> list[list[Caption] | CaptuneError]:
        """Captions of what `read` made of images (images, 3, size, size), with a prompt for each where given.

        An image of which the model has nothing to say is the reason.
        """
        results = Halving(LESS_MEMORY).results(
            len(pixels),
            lambda start, end: self.model.generate(
                pixels[start:end], options, prompts=None if prompts is None else prompts[start:end]
            ),
        )
        if None in results:
            raise OutOfMemory("There is not memory enough to caption one image.", LESS_MEMORY)
        return [captions_or_reason(self.model, found, options) for found in results if found is not None]

    def speak(self, image: Any, **options: Any) -> Iterator[str]:
        """The caption of one image piece by piece as it is written; by default without beams, as those end as a whole.

        `image` is an image, or what `read` made of one; then the prompt is taken word for word. In another language,
        and with a wording of its own, it comes as one piece.
        """
        values = self._values({"num_beams": 1, **options})
        translator = self.translator(values)
        pixels = (
            image if isinstance(image, np.ndarray) else read_pixels(image, self.model.pixels, values.caption.max_pixels)
        )
        generation = values.generation if isinstance(image, np.ndarray) else self._with_prompt(image, values)
        pieces = stream_text(self.model, pixels[None], generation)
        style = style_of(values)
        if translator is None and style is None and values.wording == WordingOptions():
            return pieces
        text = "".join(pieces)
        whole = text if translator is None else translator.translate([text])[0]
        return iter([styled(Caption(whole, 0.0), values.wording, style).text])

    def explain(
        self, image: Any, caption: Caption | str | None = None, *, filled: str | None = None, **options: Any
    ) -> Explained:
        """Attention maps of the words of an image's best caption, or of another `caption`.

        The maps are the captioner's own attention to the image. Raises `CaptuneError` for a family that has none
        for every word (BLIP-2). A translated caption is explained by the words that the model wrote. `filled` is the
        prompt as the model read it, where it was not that of the options.
        """
        backbone = backbone_of(self.model, self.name, _EXPLAINING)
        from captune.inference.explain import explain

        values = self._values(options)
        return explain(
            backbone,
            image,
            self._with_prompt(image, values, filled),
            caption=Caption(caption, 0.0) if isinstance(caption, str) else _own(caption),
            max_pixels=values.caption.max_pixels,
            model=self.name,
        )

    def explain_pixels(
        self, pixels: np.ndarray, size: tuple[int, int], caption: Caption, options: GenerationOptions
    ) -> CaptionAttention:
        """As `explain`, of what `read` made of an upright image of a size (width, height); opens no file."""
        backbone = backbone_of(self.model, self.name, _EXPLAINING)
        from captune.inference.explain import explain_pixels

        return explain_pixels(backbone, pixels, size, options, caption=_own(caption), model=self.name)

    def inspect(self, image: Any, **options: Any) -> Inspection:
        """What becomes of an image on its way to a caption: pixels, prompt, every token, and the time they take."""
        backbone = backbone_of(self.model, self.name, "Inspecting a caption")
        from captune.inference.inspect import inspect_image

        values = self._values(options)
        generation = self._with_prompt(image, values)
        return inspect_image(backbone, image, generation, max_pixels=values.caption.max_pixels, model=self.name)

    def prompts(self, values: Config | None = None, choices: tuple[Choice, ...] | None = None) -> ImagePrompts:
        """The prompts of images by the captioner's options, or by `values`; `choices` as in `Prompts.of`."""
        values = values or self.options
        return ImagePrompts(prompts_of(values, self.model.prompt, choices), self.model.codec, values.generation)

    def _values(self, flags: Mapping[str, Any]) -> Config:
        """The captioner's options, changed for one call; a style that is named then counts more than what was."""
        resolved = resolve("caption", flags=flags, base=self.options)
        if flags.get("style") is None:
            return resolved.values
        return with_style(resolved, self.model.generation, answers=self.model.codec.answers)

    def _with_prompt(self, image: Any, values: Config, filled: str | None = None) -> GenerationOptions:
        """The options of the search with the prompt of one image, or with one that is `filled`."""
        prompt = self.prompts(values).read(image, _name(image)) if filled is None else filled
        return values.generation.model_copy(update={"prompt": prompt})

    def stream(
        self,
        items: Iterable[tuple[Key, Any]],
        *,
        question: str = "",
        prompt_of: Callable[[ImagePrompts, Key, Any], str | None] | None = None,
        **options: Any,
    ) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
        """Captions of (key, image) pairs, in order, never holding more than a few batches.

        An image that cannot be read yields its error instead of captions. Captions answer a `question`, if there is
        one. `prompt_of` finds another prompt for a key and what was fetched of its image.
        """
        values = self._values(options)
        prompts = self.prompts(values)

        def read_prompt(key: Key, image: Any) -> str | None:
            if prompt_of is not None:
                return prompt_of(prompts, key, image)
            return prompts.read(image, _name(image), question)

        stream = caption_stream(
            self.model,
            items,
            values.generation,
            prompt_of=read_prompt,
            batch_size=values.caption.batch_size,
            workers=values.caption.workers,
            max_pixels=values.caption.max_pixels,
        )
        translator = self.translator(values)
        if translator is not None:
            from captune.inference.translation import translated

            stream = translated(stream, translator, values.caption.batch_size)
        style = style_of(values)
        if style is None and values.wording == WordingOptions():
            return stream
        return (
            (key, found if isinstance(found, CaptuneError) else [styled(each, values.wording, style) for each in found])
            for key, found in stream
        )

    def translate(
        self, captions: Iterable[list[Caption] | CaptuneError], language: str, translator: str | None = None
    ) -> list[list[Caption] | CaptuneError]:
        """Captions of images in another language, by a model that is named, else the Hub's for that language."""
        flags = {"language": language, **({"translator": translator} if translator else {})}
        values = resolve("caption", flags=flags, base=self.options).values
        model = self.translator(values)
        if model is None:
            return list(captions)
        from captune.inference.translation import translated

        stream = translated(((None, each) for each in captions), model, values.caption.batch_size)
        return [each for _, each in stream]

    def translator(self, values: Config) -> Translator | None:
        """The model that translates the captions, loaded at the first use; None where they stay as they are."""
        language, name = values.translation.language, values.translation.translator
        if language is None:
            if name is not None:
                raise UsageError(f"The translator {name} needs a language.", "Name it: --language de")
            return None
        if language == "en" and name is None:
            return None
        with needing_torch():
            from captune.inference.translation import default_translator, load_translator

        name = name or default_translator(language)
        with self._loading:
            if name not in self._translators:
                self._translators[name] = load_translator(name, language, self.model.device)
        loaded = self._translators[name]
        return loaded if loaded.language == language else loaded.into(language)


def noted_provenance(provenance: Provenance, captioner: Captioner) -> Provenance:
    """The provenance of what a captioner writes with its options: with the prompt's digest and the translator."""
    generation, translator = captioner.options.generation, captioner.translator(captioner.options)
    prompt = captioner.model.codec.prompt if generation.prompt is None else generation.prompt
    if isinstance(captioner.model, StructuredModel):
        prompt = captioner.model.structure.prompt(prompt)
    return replace(
        provenance,
        prompt=prompt_digest(prompt, generation.system_prompt, generation.prefill),
        translator=translator.name if translator else "",
    )


def _name(image: Any) -> str:
    """The name of an image that is a file."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else ""


def _own(caption: Caption | None) -> Caption | None:
    """A caption before its translation."""
    if caption is None or caption.original is None:
        return caption
    return replace(caption, text=caption.original, original=None)


def warn_of_style(captioner: Captioner, progress: Progress) -> None:
    """Say of a style that its prompt makes no sense for the model."""
    model = captioner.model
    note = only_wording_note(captioner.options, model.family, answers=model.codec.answers)
    if note is not None:
        progress.warn(note)
