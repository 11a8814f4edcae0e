"""`captune caption` and `captune ask`: images in, one row for each out, whatever happens to any of them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captune import __version__
from captune.captions.provenance import Provenance, today
from captune.captions.row import CaptionRow
from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import as_paths
from captune.core.options import DEFAULT_MODEL, DEFAULT_VQA_MODEL, CaptionOptions
from captune.core.progress import SILENT, Progress, track
from captune.datasets.sources.input_shards import ImageSource, InputShard, Unreadable, list_input_shards, read_images
from captune.datasets.sources.listing import find_image_paths
from captune.images.attention_maps import ExplainedFolder
from captune.inference.captioner import Captioner, noted_provenance, warn_of_style
from captune.inference.captioning import own_words_of
from captune.inference.prompting import ImagePrompts


@dataclass(frozen=True)
class Answer:
    """What the model answers about an image, and how sure it is (0–1); or why it could not."""

    image: str
    answer: str
    confidence: float
    error: str = ""
    original: str | None = None  # of a translated answer: before translation


def ask(
    pictures: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    question: str,
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> list[Answer]:
    """Answers to a question about each image, in order; one that cannot be read has an error.

    `model` is of any family (a captioner reads the question as its prompt); without it the Hub's
    `Salesforce/blip-vqa-base` is used. Options are those of `captune ask --help`.
    """
    if not question.strip():
        raise UsageError("There is no question.", "For example: captune ask photo.jpg 'what colour is the car?'")
    paths = find_image_paths(as_paths(pictures))
    resolved = resolve("caption", file=config, environment=environment, flags=options, sets=sets)
    name = model or DEFAULT_VQA_MODEL
    with progress.task(f"Loading {name}"):
        captioner = Captioner.load(name, config=resolved)
    stream = captioner.stream(((path, path) for path in paths), question=question.strip())
    answers = []
    for path, found in track(stream, progress, "Asking", len(paths)):
        if isinstance(found, CaptuneError):
            answers.append(Answer(path, "", 0.0, reason_of(found, path)))
        else:
            answers.append(Answer(path, found[0].text, found[0].confidence, original=found[0].original))
    return answers


def caption(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | Resolved | None = None,
    sets: Iterable[str] = (),
    explain: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[CaptionRow]:
    """Caption files, folders (with what lies in them), patterns, archives and addresses, in order.

    Yields a row for every image; one that cannot be read has status `error` and its
    reason, and stops nothing. Without `model` the Hub's
    `Salesforce/blip-image-captioning-base` is used. Into the folder `explain` go heat maps of
    the words of each image's best caption. Options are those of `captune caption --help`.
    """
    resolved = resolve("caption", file=config, environment=environment, flags=options, sets=sets)
    tables = resolved.values.tables
    shards = list_input_shards(
        as_paths(inputs),
        recursive=resolved.values.caption.recursive,
        warn=progress.warn,
        images=tables.images,
        allow_outside=tables.allow_outside,
        prompts=resolved.values.prompts.prompt_column,
    )
    return _rows(list(shards), model or DEFAULT_MODEL, resolved, explain, progress)


def _rows(
    shards: Sequence[InputShard], model: str, resolved: Any, explain: str | os.PathLike[str] | None, progress: Progress
) -> Iterator[CaptionRow]:
    if explain is not None and resolved.values.structure.schema is not None:
        raise UsageError("A caption of fields has no attention maps.", "Leave out --explain, or --schema.")
    with progress.task("Loading the model"):
        captioner = Captioner.load(model, config=resolved)
    warn_of_style(captioner, progress)
    folder = None if explain is None else ExplainedFolder(explain)
    provenance = _provenance(captioner)
    codec, own_words = captioner.model.codec, captioner.options.caption.own_words
    counts = [shard.count for shard in shards]
    total = None if None in counts else sum(count or 0 for count in counts)
    prompts: dict[str, str] = {}  # those that are not the same for all

    def prompt_of(own: ImagePrompts, image: ImageSource, source: Any) -> str | None:
        prompt = own.read(source, image.name) if image.prompt is None else image.prompt
        if prompt is not None and (own.vary or image.prompt is not None):
            prompts[image.name] = prompt
        return prompt

    stream = captioner.stream(((image, image.source) for image in _image_sources(shards)), prompt_of=prompt_of)
    for image, found in track(stream, progress, "Captioning", total):
        name, prompt = image.name, prompts.pop(image.name, None)
        if isinstance(found, CaptuneError):
            yield CaptionRow(name, (), "error", reason_of(found, name), model, prompt=prompt)
        else:
            if folder is not None:
                source = image.source() if callable(image.source) else image.source
                folder.write(captioner.explain(source, found[0], filled=prompt), name)
            words = [own_words_of(codec, each) for each in found] if own_words else ()
            noted = captioner.prompts().noted(provenance, prompt)
            yield CaptionRow(
                name, tuple(found), "ok", None, model, provenance=noted and noted.of(found, words), prompt=prompt
            )


def notes_provenance(options: CaptionOptions) -> bool:
    """Whether rows that are not of a job say who wrote them."""
    if options.provenance == "auto":
        return options.own_words or options.format == "xmp"
    return options.provenance == "on"


def _provenance(captioner: Captioner) -> Provenance | None:
    """What rows note of the model; None where the options want nothing of it."""
    if not notes_provenance(captioner.options.caption):
        return None
    from captune.models.loading.identity import identity_of

    identity = identity_of(captioner.name)
    base = Provenance("model", captioner.name, identity.digest if identity else "", date=today(), captune=__version__)
    return noted_provenance(base, captioner)


def _image_sources(shards: Iterable[InputShard]) -> Iterator[ImageSource]:
    """The images of all input shards; a shard that cannot be read is one image with that reason."""
    for shard in shards:
        try:
            yield from read_images(shard)
        except CaptuneError as error:
            yield ImageSource(shard.location, Unreadable(error))


def reason_of(error: CaptuneError, path: str) -> str:
    """Why an image failed, without its path."""
    reason = getattr(error, "reason", None)
    return reason or error.message.removeprefix(f"{path}: ")
