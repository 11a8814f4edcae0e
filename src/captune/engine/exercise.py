"""Self-test: a tiny model of a family is built, saved, loaded, and captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.models import FAMILIES
from captune.models.generate import generate


@dataclass(frozen=True)
class SelfTestResult:
    """What the loaded model captions, and whose search (captune or transformers) found it."""

    caption: Caption
    decoder: str


def self_test(family: str, folder: Path) -> SelfTestResult:
    """Build the tiny model of a family, save it, load it, caption noise with both.

    Raises `CaptuneError` where the loaded model writes another caption than the saved one.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    built = FAMILIES[family].tiny()
    built.save(folder)
    loaded = FAMILIES[family].load(folder)
    options = GenerationOptions(num_beams=1, max_new_tokens=5)
    captions = []
    for backbone in (built, loaded):
        backbone.model.eval()
        with torch.no_grad():
            black = torch.zeros(1, 3, backbone.pixels.size, backbone.pixels.size, dtype=torch.uint8)
            captions.append(generate(backbone, backbone.image_features(black), options)[0][0])
    if captions[0].text != captions[1].text:
        raise CaptuneError(
            f"The tiny {family} model captions differently after saving and loading.",
            "The versions of torch, transformers and tokenizers may not fit together; reinstall captune.",
        )
    return SelfTestResult(captions[1], loaded.decoder)
