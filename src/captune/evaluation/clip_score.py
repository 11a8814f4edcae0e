"""CLIPScore and RefCLIPScore: how well a caption fits its image, with and without references.

Hessel et al. 2021: 2.5 x the cosine between CLIP's embeddings of image and caption, not
below 0; captions are read as "A photo depicts ...". RefCLIPScore is its harmonic mean with
the cosine to the nearest reference.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from captune.core.errors import CaptuneError, MetricUnavailable
from captune.core.progress import Progress, track
from captune.images.batches import read_pixels
from captune.metrics.corpus import Corpus, MetricResult, averaged
from captune.models.blip_matcher import BlipMatcher
from captune.models.matcher import Matcher, load_matcher

WEIGHT = 2.5
PREFIX = "A photo depicts "
BATCH = 64


def clip_score(corpus: Corpus) -> MetricResult:
    """Keys `clip_score` (0–2.5) and `ref_clip_score`; corpus scores are means over images.

    The images and the CLIP model come from the corpus's context. Raises `MetricUnavailable` where there
    are no images or the CLIP cannot be loaded.
    """
    images = corpus.context.pictures
    if images is None:
        raise MetricUnavailable(
            "clip_score looks at the images, and none were given.",
            "captune evaluate and compare know them; captune score takes --pictures FOLDER.",
        )
    clip = _load(corpus.context.clip_model, corpus.context.device)

    def text_features(texts: Sequence[str]) -> Tensor:
        return clip.embed_texts([PREFIX + text for text in texts])

    def image_features(files: Sequence[str]) -> Tensor:
        return clip.embed_images(clip.encode_all([read_pixels(file, clip.pixels) for file in files]))

    references = [text for group in corpus.references for text in group]
    text_vectors = _embedded(corpus.hypotheses, text_features, corpus.progress, "CLIP: captions")
    known = _embedded(references, text_features, corpus.progress, "CLIP: references")
    files = [images[key] for key in corpus.ids]
    image_vectors = _embedded(files, image_features, corpus.progress, "CLIP: images")
    fit = WEIGHT * np.maximum((image_vectors * text_vectors).sum(axis=1), 0)
    own = corpus.image_of_reference
    nearest = np.zeros(len(fit))
    np.maximum.at(nearest, own, (text_vectors[own] * known).sum(axis=1))
    both = np.divide(2 * fit * nearest, fit + nearest, out=np.zeros(len(fit)), where=fit + nearest > 0)
    # Of which captions and references CLIP read only the beginning.
    cut = sum(clip.cut([PREFIX + text for text in (*corpus.hypotheses, *references)]))
    settings = {"clip_model": corpus.context.clip_model, **({"clip_cut": cut} if cut else {})}
    return averaged({"clip_score": fit, "ref_clip_score": both}, settings)


@lru_cache(maxsize=1)
def _load(name: str, device: str) -> Matcher:
    """A CLIP, or another dual encoder, by Hub name or folder. Kept for the next call."""
    try:
        clip = load_matcher(name, device)
    except CaptuneError as error:
        raise MetricUnavailable(
            f"clip_score cannot load the CLIP '{name}': {error.message}",
            "Give --clip-model a folder that holds one, or a Hub name where there is a network.",
        ) from error
    if isinstance(clip, BlipMatcher):
        raise MetricUnavailable(f"clip_score is defined for a CLIP, and {name} is a BLIP.", "Give --clip-model a CLIP.")
    return clip


def _embedded(
    items: Sequence[str], embed: Callable[[Sequence[str]], Tensor], progress: Progress, label: str
) -> np.ndarray:
    """Unit embeddings (N, D) of captions or images, `BATCH` at a time."""
    rows = [
        embed(items[start : start + BATCH]).cpu().numpy()
        for start in track(range(0, len(items), BATCH), progress, label)
    ]
    return np.concatenate(rows)
