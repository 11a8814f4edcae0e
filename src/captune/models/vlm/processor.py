"""A checkpoint's processor for images and text, with Pillow and without what videos need."""

import inspect
from pathlib import Path
from typing import Any

from transformers.utils.hub import PushToHubMixin

from captune.core.errors import CaptuneError
from captune.models.loading.pretrained import PIXELS, PROCESSOR, TOKENIZER, pretrained, read_file
from captune.models.vlm.image_processors import PROCESSORS


def load_processor(source: str | Path, **hub: Any) -> Any:
    """A checkpoint's processor, with the image processor for Pillow.

    Raises `CaptuneError` for a kind of model whose images only torchvision prepares.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    config = pretrained(AutoConfig, source, **hub)
    saved = read_file(str(source), PROCESSOR, hub)
    kind = _kind_named(saved, *(read_file(str(source), name, hub) for name in (PIXELS, TOKENIZER)))
    kind = kind or _kind_named({"processor_class": PROCESSOR_MAPPING_NAMES.get(config.model_type)})
    if kind is None:
        raise CaptuneError(
            f"{source} is of the kind '{config.model_type}', for which transformers has no processor.",
            "Models that caption here: captune models.",
        )
    saved.setdefault("video_processor", read_file(str(source), "video_preprocessor_config.json", hub))
    try:
        images = pretrained(AutoImageProcessor, source, backend="pil", **hub)
    except (ImportError, ValueError) as error:
        raise _torchvision_alone(config.model_type) from error
    if not _of_pillow(images):
        raise _torchvision_alone(config.model_type)
    values, _ = kind.get_processor_dict(str(source), **hub)
    return build_processor(kind, images, pretrained(AutoTokenizer, source, **hub), {**saved, **values})


def _torchvision_alone(kind: str) -> CaptuneError:
    return CaptuneError(
        f"Images for models of the kind '{kind}' are prepared by torchvision alone, and captune prepares them with "
        "Pillow.",
        "Serve it with vLLM or llama.cpp, or take a model of another kind: docs/models.md lists what was tried.",
    )


def _of_pillow(images: Any) -> bool:
    """Whether an image processor is a whole one: of those for torchvision alone, stand-ins are made without it."""
    return callable(getattr(images, "preprocess", None)) and "torchvision" not in type(images).__module__


def _kind_named(*files: dict[str, Any]) -> Any:
    """The class of the first processor that a file names, as `AutoProcessor` finds it; None where there is none."""
    import transformers

    names = [name for file in files if isinstance(name := file.get("processor_class"), str)]
    return next(
        (PROCESSORS.get(name) or getattr(transformers, name) for name in names if hasattr(transformers, name)), None
    )


def build_processor(kind: Any, images: Any, tokenizer: Any, values: dict[str, Any]) -> Any:
    """A processor of the class `kind` of its parts and its saved `values`.

    `transformers` builds processors for videos (which needs torchvision) and sound as well: of those the settings
    alone are kept.
    """
    parts = kind.get_attributes()
    named = inspect.signature(kind.__init__).parameters
    chosen = {name: value for name, value in values.items() if name in named and name not in parts}
    others = {name: Settings(values.get(name) or {}) for name in parts if name not in ("image_processor", "tokenizer")}
    if not others:
        return kind(image_processor=images, tokenizer=tokenizer, **chosen)
    return _accepting(kind)(image_processor=images, tokenizer=tokenizer, **others, **chosen)


class Settings(PushToHubMixin):
    """The saved settings of a processor for videos or sound, which is not built."""

    _auto_class = None

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __getattr__(self, name: str) -> Any:
        """A setting; None where it was not saved."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self.values.get(name)

    def to_dict(self) -> dict[str, Any]:
        """Them, as they were."""
        return dict(self.values)


def _accepting(kind: Any) -> Any:
    """The class, by the same name, with settings in place of the processors for videos and sound."""

    def check(self: Any, name: str, part: Any) -> Any:
        return type(part) if isinstance(part, Settings) else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
