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
    "Captioner": "captune.app.captioner",
    "caption": "captune.app.caption",
    "caption_job": "captune.app.bulk",
    "compare": "captune.app.compare",
    "convert": "captune.app.convert",
    "doctor": "captune.app.doctor",
    "demo": "captune.app.demo",
    "evaluate": "captune.app.evaluate",
    "capfilt": "captune.app.capfilt",
    "match": "captune.app.match",
    "embed": "captune.app.match",
    "ask": "captune.app.ask",
    "inspect": "captune.app.inspect",
    "review": "captune.app.review",
    "export": "captune.app.export",
    "prepare": "captune.app.prepare",
    "push": "captune.app.push",
    "report": "captune.app.report",
    "runs": "captune.app.runs",
    "score": "captune.app.score",
    "train": "captune.app.train",
    "tune": "captune.app.tune",
    "video": "captune.app.video",
    "webcam": "captune.app.webcam",
    "CaptuneError": "captune.core.errors",
    "Caption": "captune.core.records",
    "ImageRecord": "captune.core.records",
    "Explained": "captune.data.explained",
    "Cfg": "captune.app.blocks",
    "block": "captune.app.blocks",
    "PIPELINE": "captune.app.blocks",
    "run_pipeline": "captune.app.blocks",
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
