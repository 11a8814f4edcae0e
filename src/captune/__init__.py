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

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Captioner": "captune.inference.captioner",
    "caption": "captune.api.caption",
    "caption_job": "captune.jobs.job",
    "compare": "captune.evaluation.compare",
    "convert": "captune.export.convert",
    "doctor": "captune.api.doctor",
    "demo": "captune.api.demo",
    "evaluate": "captune.evaluation.evaluate",
    "capfilt": "captune.api.capfilt",
    "match": "captune.inference.match",
    "embed": "captune.inference.match",
    "ask": "captune.api.ask",
    "inspect": "captune.inference.inspect",
    "review": "captune.evaluation.review",
    "export": "captune.export.export",
    "prepare": "captune.datasets.prepare",
    "push": "captune.export.push",
    "report": "captune.evaluation.report",
    "runs": "captune.training.runs",
    "score": "captune.evaluation.score",
    "train": "captune.training.train",
    "tune": "captune.training.tune",
    "video": "captune.video.video",
    "webcam": "captune.video.webcam",
    "CaptuneError": "captune.core.errors",
    "Caption": "captune.core.records",
    "ImageRecord": "captune.core.records",
    "Explained": "captune.images.attention_maps",
    "Cfg": "captune.api.blocks",
    "block": "captune.api.blocks",
    "PIPELINE": "captune.api.blocks",
    "run_pipeline": "captune.api.blocks",
}

__all__ = [*sorted(_HOMES), "__version__"]

if TYPE_CHECKING:
    from captune.core.errors import CaptuneError as CaptuneError
    from captune.core.records import Caption as Caption
    from captune.core.records import ImageRecord as ImageRecord


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'captune' has no attribute '{name}'")
    from captune.core.environment import heed_hub_token

    heed_hub_token(os.environ)
    home = importlib.import_module(_HOMES[name])
    return home if name == "runs" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
