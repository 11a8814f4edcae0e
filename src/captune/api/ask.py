"""`captune ask`: a question about pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from captune.api.caption import reason_of
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import as_paths
from captune.core.options import DEFAULT_VQA_MODEL
from captune.core.progress import SILENT, Progress, track
from captune.datasets.sources.listing import find_image_paths
from captune.decoding.encoding import prompt_for
from captune.inference.captioner import Captioner


@dataclass(frozen=True)
class Answer:
    """What the model answers about an image, and how sure it is (0–1); or why it could not."""

    image: str
    answer: str
    confidence: float
    error: str = ""
    original: str | None = None  # of a translated answer, what the model said


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
    given = as_paths(pictures)
    paths = find_image_paths(given)
    resolved = resolve("caption", file=config, environment=environment, flags=options, sets=sets)
    name = model or DEFAULT_VQA_MODEL
    with progress.task(f"Loading {name}"):
        captioner = Captioner.load(name, config=resolved)
    own = captioner.options.generation.prompt
    prompt = prompt_for(captioner.model.prompt, question.strip(), own)
    stream = captioner.stream(((path, path) for path in paths), prompt=prompt)
    answers = []
    for path, found in track(stream, progress, "Asking", len(paths)):
        if isinstance(found, CaptuneError):
            answers.append(Answer(path, "", 0.0, reason_of(found, path)))
        else:
            answers.append(Answer(path, found[0].text, found[0].confidence, original=found[0].original))
    return answers
