"""`Captioner`: a loaded model as a function from pictures to captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from captune.core.config import Resolved, resolve
from captune.core.options import CaptionConfig
from captune.core.records import Caption

if TYPE_CHECKING:
    import torch

    from captune.core.errors import CaptuneError
    from captune.models.backbone import Backbone

Key = TypeVar("Key")
DEFAULT_MODEL = "Salesforce/blip-image-captioning-base"


class Captioner:
    """A model on its device, ready to caption.

    `Captioner.load(name)(image).text` is the whole use; `name` is a folder, a run
    (`runs/x@best-loss`), or a Hub id. Options are those of `captune caption --help`; what
    is not given is as the model was saved, else captune's default.
    """

    def __init__(self, name: str, backbone: Backbone, config: Resolved[CaptionConfig], dtype: torch.dtype) -> None:
        self.name, self.backbone, self.dtype = name, backbone, dtype
        self.config = config
        self.options = config.with_defaults("generation", backbone.generation)

    @classmethod
    def load(
        cls, model: str = DEFAULT_MODEL, *, config: Resolved[CaptionConfig] | None = None, **options: Any
    ) -> Captioner:
        """Load a model once; raises `CaptuneError` where that is not possible."""
        config = config or resolve(CaptionConfig, flags=options)
        from captune.engine.loader import load_backbone
        from captune.models.devices import choose_device, choose_precision

        device = choose_device(config.values.run_on.device)
        dtype = choose_precision(config.values.run_on.precision, device)
        backbone = load_backbone(str(model))
        backbone.model.to(device=device, dtype=dtype)
        return cls(str(model), backbone, config, dtype)

    def __call__(self, image: Any, **options: Any) -> Caption:
        """The best caption of one picture: a path, bytes, or a PIL picture."""
        return self.captions(image, **options)[0]

    def captions(self, image: Any, **options: Any) -> list[Caption]:
        """All captions of one picture that the options ask for, the best first."""
        from captune.core.errors import CaptuneError

        for _, found in self.stream([(None, image)], **options):
            if isinstance(found, CaptuneError):
                raise found
            return found
        raise AssertionError("a stream yields one result for one picture")

    def batch(self, images: Iterable[Any], **options: Any) -> list[list[Caption]]:
        """Captions of many pictures; the same as one by one. An unreadable picture raises."""
        from captune.core.errors import CaptuneError

        results = []
        for _, found in self.stream(((None, image) for image in images), **options):
            if isinstance(found, CaptuneError):
                raise found
            results.append(found)
        return results

    def stream(
        self, items: Iterable[tuple[Key, Any]], **options: Any
    ) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
        """Captions of (key, picture) pairs, in order, never holding more than a few batches.

        A picture that cannot be read yields its error instead of captions.
        """
        from captune.engine.captioning import caption_stream

        values = resolve(CaptionConfig, flags=options, base=self.options).values
        return caption_stream(
            self.backbone,
            items,
            values.generation,
            batch_size=values.caption.batch_size,
            workers=values.caption.workers,
            max_pixels=values.caption.max_pixels,
            dtype=self.dtype,
        )
