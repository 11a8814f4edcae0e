"""What becomes of an image on its way to a caption, step by step (`captune inspect`)."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, TypeVar

import torch

from captune.core.config import resolve
from captune.core.options import DEFAULT_MODEL, GenerationOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption
from captune.images.batches import read_pixels
from captune.images.open import MAX_PIXELS, StoredImage, stored_image
from captune.images.preprocessing import Box, crop_box, resized_shape
from captune.inference.captioner import Captioner
from captune.inference.explain import Step, score_caption, token_steps, token_text, upright
from captune.models.backbone import Backbone
from captune.models.generate import generate

Result = TypeVar("Result")


@dataclass(frozen=True)
class Preparation:
    """An image on its way to the model's pixels.

    `size` is that of the upright image (width, height), `resized` what it is scaled to, `square` the side of what
    is then cut out, `seen` the part of the upright image in it (left, top, right, bottom). `mean` and `std` of each
    colour are those of the normalised pixels, `low` and `high` their extremes.
    """

    stored: StoredImage
    size: tuple[int, int]
    resized: tuple[int, int]
    square: int
    seen: Box
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Inspection:
    """How a caption came about.

    `steps` are the tokens of the best caption with the probabilities that the model alone gives them, without the
    penalties of the search; `seconds` the time of `reading` the image, of `vision` and of the `search`, after a
    first caption that is not counted.
    """

    image: str
    model: str
    family: str
    device: str
    precision: str
    decoder: str
    beams: int
    preparation: Preparation
    memory: tuple[int, ...]
    prompt: str
    prompt_tokens: tuple[str, ...]
    caption: str
    confidence: float
    steps: tuple[Step, ...]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect_image(
    backbone: Backbone, source: Any, options: GenerationOptions, *, max_pixels: int = MAX_PIXELS, model: str = ""
) -> Inspection:
    """Caption an image (a path, bytes or a PIL image) and report every step of the way."""
    settings, seconds = backbone.pixels, {}

    def timed(name: str, work: Callable[[], Result]) -> Result:
        begin = perf_counter()
        result = work()
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        seconds[name] = perf_counter() - begin
        return result

    def search(memory: torch.Tensor, search_options: GenerationOptions) -> Caption:
        return generate(backbone, memory, search_options)[0][0]

    pixels = timed("reading", lambda: read_pixels(source, settings, max_pixels))
    batch = torch.from_numpy(pixels)[None]
    with torch.inference_mode():
        # What is laid out once for all images is not this image's time.
        search(backbone.image_features(batch), options.model_copy(update={"max_new_tokens": 1, "min_new_tokens": 0}))
        memory = timed("vision", lambda: backbone.image_features(batch))
        caption = timed("search", lambda: search(memory, options))
    scored = score_caption(backbone, memory, caption, options)
    values = settings.normalise(batch[0]).double()
    size = upright(source, max_pixels).size
    return Inspection(
        image=os.fspath(source) if isinstance(source, (str, os.PathLike)) else "",
        model=model,
        family=backbone.family,
        device=str(backbone.device),
        precision=str(backbone.compute_dtype).removeprefix("torch."),
        decoder=backbone.searched_by,
        beams=options.num_beams,
        preparation=Preparation(
            stored=stored_image(source),
            size=size,
            resized=resized_shape(size, settings.size, settings.shorter),
            square=settings.size,
            seen=crop_box(size, settings.size, settings.shorter),
            mean=tuple(values.mean((1, 2)).tolist()),
            std=tuple(values.std((1, 2), correction=0).tolist()),
            low=float(values.min()),
            high=float(values.max()),
        ),
        memory=tuple(memory.shape[1:]),
        prompt=backbone.codec.prompt if options.prompt is None else options.prompt,
        prompt_tokens=tuple(token_text(backbone, token) for token in scored.prefix),
        caption=caption.text,
        confidence=caption.confidence,
        steps=tuple(token_steps(backbone, scored)),
        seconds=seconds,
    )


def inspect(
    picture: str | os.PathLike[str],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Inspection:
    """Preparation, prompt, every token with its probability and alternatives, and timings of an image's caption.

    Options are those of `captune inspect --help`; without `model` as in `captune.caption`.
    """
    resolved = resolve("caption", file=config, environment=environment, flags=options, sets=sets)
    with progress.task("Loading the model"):
        captioner = Captioner.load(model or DEFAULT_MODEL, config=resolved)
    with progress.task("Captioning"):
        return captioner.inspect(os.fspath(picture))
