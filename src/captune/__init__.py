"""captune: fine-tune, evaluate and serve image-captioning models.

The verbs of the command line are functions here, with the same names and options::

    import captune

    captune.prepare("flickr8k/", out="data")
    captune.train("data", model="Salesforce/blip-image-captioning-base", out="runs/x", epochs=2)
    print(captune.evaluate("runs/x", data="data").scores)
    print(captune.Captioner.load("runs/x")("photo.jpg").text)

Nothing heavy is imported before a verb is called.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from captune.core.verbs import VERBS, load

__version__ = "0.1.0"

# Public names besides the verbs, and where they are.
_OTHERS = {
    "Captioner": "captune.inference.captioner:Captioner",
    "Library": "captune.library.library:Library",
    "caption_job": "captune.jobs.job:caption_job",
    "CaptuneError": "captune.core.errors:CaptuneError",
    "Caption": "captune.core.records:Caption",
    "ImageRecord": "captune.core.records:ImageRecord",
    "Explained": "captune.images.attention_maps:Explained",
    **{name: f"captune.api.blocks:{name}" for name in ("Cfg", "block", "PIPELINE", "run_pipeline")},
}
_TARGETS = {**{verb.name: verb.function for verb in VERBS.own.values() if verb.function}, **_OTHERS}

__all__ = [*sorted(_TARGETS), "__version__"]

if TYPE_CHECKING:
    from captune.core.errors import CaptuneError as CaptuneError
    from captune.core.records import Caption as Caption
    from captune.core.records import ImageRecord as ImageRecord


def __getattr__(name: str) -> Any:
    if name not in _TARGETS:
        raise AttributeError(f"module 'captune' has no attribute '{name}'")
    from captune.core.environment import heed_hub_token, report_nothing

    heed_hub_token(os.environ)
    report_nothing(os.environ)
    return load(_TARGETS[name])


def __dir__() -> list[str]:
    return __all__


class _Verbs(ModuleType):
    """`captune.export` and `captune.video` are the verbs, also once the packages of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _TARGETS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Verbs
