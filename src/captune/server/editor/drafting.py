"""A model that writes drafts for the editor, loaded when it is first needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from captune.captions.provenance import Provenance, today
from captune.core.errors import CaptuneError
from captune.library.drafts import draft_of, provenance_of
from captune.library.history import Draft

if TYPE_CHECKING:
    from captune.inference.captioner import Captioner


class LazyModel:
    """Drafts by the model `name` (a run, a folder, a Hub id) with options of `captune caption`."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        self._loaded: tuple[Captioner, Provenance] | None = None

    def __call__(self, images: list[str | bytes]) -> list[Draft | str]:
        """A draft of each image, or the reason why there is none; raises `CaptuneError` where no model is."""
        if self._loaded is None:
            from captune.inference.captioner import Captioner

            captioner = Captioner.load(self.name, **self.options)
            self._loaded = captioner, provenance_of(captioner, self.name)
        captioner, provenance = self._loaded
        noted = replace(provenance, date=today())
        language = captioner.options.translation.language
        found: list[Draft | str] = []
        for _, captions in captioner.stream((None, image) for image in images):
            if isinstance(captions, CaptuneError):
                found.append(captions.message)
            else:
                found.append(draft_of(captions[0], noted, language))
        return found
