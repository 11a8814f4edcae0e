"""Models that say how well texts fit images, and the one loader of them.

Of three kinds: the matching of BLIP and BLIP-2, with a head that reads text and image together; SigLIP, whose
probability of a pair is the sigmoid of its cosine; CLIP and most others, which compare the texts of an image with each
other (softmax).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captune.core.errors import CaptuneError
from captune.core.options import DEFAULT_MATCHER
from captune.core.progress import SILENT, Progress
from captune.images.preprocessing import Preprocessing
from captune.models.loading.pretrained import pretrained

ADVICE = (
    f"Take a matcher: {DEFAULT_MATCHER}, a SigLIP (google/siglip2-base-patch16-224), a CLIP "
    "(openai/clip-vit-base-patch32) or another model with vectors of images and texts."
)


def cosines_of(images: Tensor, texts: Tensor) -> Tensor:
    """Cosines (images, texts) of unit vectors of images ([vectors,] size) and texts (size): of several the highest."""
    near = images @ texts.T
    return near.amax(1) if near.dim() == 3 else near


class Matcher(ABC):
    """Images and texts as vectors in one space, and the probability that they belong together, fp32.

    `pixels` prepares images; those with a `size` of 0 reach the model's own processor as they are.
    """

    model: Any
    tokenizer: Any
    pixels: Preprocessing

    @property
    def shared(self) -> bool:
        """Whether a text's probability is its share among the texts of an image: that of one text alone is always 1."""
        return False

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens of the longest text that the model reads whole."""

    def encode_all(self, images: Sequence[np.ndarray]) -> Tensor:
        """Images (3, height, width), uint8, as `pixels` prepared them, to features (images, …)."""
        with torch.inference_mode():
            return self.encode(torch.from_numpy(np.stack(images)))

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (images, 3, size, size), uint8, to features (images, …)."""

    @property
    def image_vectors(self) -> int:
        """Vectors of an image; with more than one the nearest to a text counts."""
        return 1

    @abstractmethod
    def embed_images(self, features: Tensor) -> Tensor:
        """Unit vectors (images, size), or (images, `image_vectors`, size)."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (texts, size); of a text that is longer than `longest` only the beginning is read."""

    @abstractmethod
    def probabilities(self, features: Tensor, texts: Sequence[str], cosines: Tensor) -> Tensor:
        """Probabilities (images, texts) of features (images, …), texts, and the cosines of their vectors."""

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Of which texts only the beginning is read."""
        if not texts:
            return []
        ids = self.tokenizer(self.read_as(texts), truncation=False, verbose=False)["input_ids"]
        return [len(each) > self.longest for each in ids]

    def read_as(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer gets them."""
        return list(texts)

    def warn_cut(self, texts: Sequence[str], progress: Progress) -> None:
        """Warn of texts of which only the beginning is read."""
        cut = [text for text, is_cut in zip(texts, self.cut(texts), strict=True) if is_cut]
        if cut:
            many = "One text is" if len(cut) == 1 else f"{len(cut):,} texts are"
            progress.warn(f"{many} longer than the {self.longest} tokens that this model reads: {cut[0][:60]!r}…")


def load_matcher(name: str, device: str = "auto", progress: Progress = SILENT) -> Matcher:
    """The matcher of a folder or a Hub id, on a device; raises `CaptuneError` where there is none.

    The matching of BLIP or BLIP-2, or any dual encoder of `transformers`: CLIP, SigLIP, SigLIP 2, MetaCLIP 2, AltCLIP,
    Chinese-CLIP, ALIGN, FLAVA, a `VisionTextDualEncoderModel` …
    """
    from captune.models.loading.devices import choose_device
    from captune.models.loading.loader import load_pretrained

    _check_layout(name)
    with progress.task(f"Loading {name}"):
        matcher: Matcher = load_pretrained(_load, name)
        matcher.model.to(choose_device(device))
    return matcher


def _load(source: str | Path, **hub: Any) -> Matcher:
    from captune.models.blip2_matcher import Blip2Matcher
    from captune.models.blip_matcher import BlipMatcher
    from captune.models.dual_encoder import DualEncoder

    config = _config(source, **hub)
    if is_dual_encoder(config):
        return DualEncoder.load(source, **hub)
    for kind in (BlipMatcher, Blip2Matcher):
        if kind.architecture in (config.architectures or ()):
            return kind.load(source, **hub)
    raise no_matcher(source, config)


def _config(source: str | Path, **hub: Any) -> Any:
    from transformers import AutoConfig

    return pretrained(AutoConfig, source, **hub)


def _check_layout(name: str) -> None:
    """Raise `CaptuneError` for a folder whose weights are in the layout of another library."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return
    if (folder / "open_clip_config.json").is_file():
        raise CaptuneError(
            f"{folder} is in the layout of open_clip alone: it has no config.json.",
            "Take the same weights in the layout of transformers; their page on the Hub names them.",
        )
    if (folder / "0_CLIPModel").is_dir():
        inner = folder / "0_CLIPModel"
        raise CaptuneError(f"{folder} is a model of sentence-transformers around a CLIP.", f"Name the CLIP: {inner}")


def is_matcher(config: Any) -> bool:
    """Whether the model of a `transformers` configuration matches images and texts."""
    from captune.models.blip2_matcher import Blip2Matcher
    from captune.models.blip_matcher import BlipMatcher

    heads = {BlipMatcher.architecture, Blip2Matcher.architecture}
    return not heads.isdisjoint(config.architectures or ()) or is_dual_encoder(config)


_FILMS, _SOUNDS = "it compares films with texts, not images", "it compares sounds with texts, not images"
_PARTS = "it finds what a text names within an image, and does not compare the whole image with a whole text"
_TOGETHER = "it reads a text and an image together, and has no vectors of either alone"
_TOKENS = "it has a vector for each part of an image and each token of a text, not one for the whole"
_WRITES = "it writes texts, and does not compare them with images"
# What other kinds do, some of which have both vectors.
_OTHERS = {
    **dict.fromkeys(("pe_audio_video", "pe_video", "videoprism", "xclip"), _FILMS),
    **dict.fromkeys(("clap", "clvp", "pe_audio"), _SOUNDS),
    **dict.fromkeys(("clipseg", "grounding-dino", "mm-grounding-dino", "omdet-turbo", "owlv2", "owlvit"), _PARTS),
    **dict.fromkeys(("sam3", "sam3_lite_text"), _PARTS),
    **dict.fromkeys(("bridgetower", "lxmert", "vilt", "visual_bert"), _TOGETHER),
    **dict.fromkeys(("colmodernvbert", "colpali", "colqwen2", "neomme"), _TOKENS),
    **dict.fromkeys(("blip", "blip-2", "git", "instructblip", "vision-encoder-decoder"), _WRITES),
}


def is_dual_encoder(config: Any) -> bool:
    """Whether it has vectors of images and of texts in one space: CLIP and its like."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if config.model_type in _OTHERS or type(config) not in MODEL_MAPPING:
        return False
    kind: Any = MODEL_MAPPING[type(config)]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return all(hasattr(each, name) for each in kinds for name in ("get_text_features", "get_image_features"))


def no_matcher(source: str | Path, config: Any) -> CaptuneError:
    """The error for a model that compares no texts with images."""
    built = ", ".join(config.architectures or ()) or f"model of the kind '{config.model_type}'"
    half = next((half for half in ("text", "vision") if config.model_type.endswith(f"_{half}_model")), None)
    if half is not None:
        return CaptuneError(f"{source} is the {half} part of a model alone ({built}).", f"Take the whole. {ADVICE}")
    does = _OTHERS.get(config.model_type, "captune knows no vectors of images and texts of such a model")
    return CaptuneError(f"{source} is a {built}: {does}.", ADVICE)


def check_whole(source: str | Path, missing: Sequence[str]) -> None:
    """Raise `CaptuneError` where weights are missing: `transformers` draws them at random."""
    if missing:
        raise CaptuneError(
            f"{source} does not hold the whole model: {len(missing):,} weights are missing, such as {min(missing)}.",
            f"It may be a part alone, or another model's weights. {ADVICE}",
        )


def full_name(name: str) -> str:
    """A folder with its whole path, a Hub id as it is."""
    return os.path.realpath(os.path.expanduser(name)) if os.path.exists(os.path.expanduser(name)) else name
