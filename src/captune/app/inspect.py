"""`captune inspect`: one picture on its way to a caption."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from captune.app.captioner import Captioner
from captune.core.config import resolve
from captune.core.options import DEFAULT_MODEL, CaptionConfig
from captune.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from captune.engine.inspecting import Inspection


def inspect(
    picture: str | os.PathLike[str],
    *,
    model: str | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Inspection:
    """Preparation, prompt, every token with its probability and alternatives, and timings of a picture's caption.

    Options are those of `captune inspect --help`; without `model` as in `captune.caption`.
    """
    resolved = resolve(CaptionConfig, environment=os.environ if environment is None else environment, flags=options)
    with progress.task("Loading the model"):
        captioner = Captioner.load(model or DEFAULT_MODEL, config=resolved)
    with progress.task("Captioning"):
        return captioner.inspect(os.fspath(picture))
