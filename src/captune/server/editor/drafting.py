"""A model that writes drafts for the editor, loaded when it is first needed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from captune import __version__
from captune.captions.provenance import Provenance, today
from captune.captions.quality import flags_of
from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.library.history import Draft

if TYPE_CHECKING:
    from captune.inference.captioner import Captioner


class LazyModel:
    """Drafts by the model `name` (a run, a folder, a Hub id) with options of `captune caption`."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        self._captioner: Captioner | None = None

    def __call__(self, paths: list[str]) -> list[Draft | str]:
        """A draft of each image, or the reason why there is none; raises `CaptuneError` where no model is."""
        if self._captioner is None:
            from captune.inference.captioner import Captioner

            self._captioner = Captioner.load(self.name, **self.options)
        captioner = self._captioner
        language = captioner.options.translation.language
        found: list[Draft | str] = []
        for _, captions in captioner.stream((None, path) for path in paths):
            if isinstance(captions, CaptuneError):
                found.append(captions.message)
            else:
                found.append(draft_of(captions[0], self.name, language))
        return found


def draft_of(caption: Caption, model: str, language: str | None = None) -> Draft:
    """A caption as a draft, with its flags and where it comes from."""
    base = Provenance("model", model, date=today(), captune=__version__).of([caption])
    confidence = caption.confidence if math.isfinite(caption.confidence) else None
    flags = tuple(flags_of(caption, language))
    return Draft(caption.text, model, json.dumps(base.to_json()), confidence, flags, language)
