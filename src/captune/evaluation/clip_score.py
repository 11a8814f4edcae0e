"""CLIPScore and RefCLIPScore: how well a caption fits its image, with and without references.

Hessel et al. 2021: 2.5 x the cosine between CLIP's embeddings of image and caption, not
below 0; captions are read as "A photo depicts ...". RefCLIPScore is its harmonic mean with
the cosine to the nearest reference.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from captune.core.errors import CaptuneError, MetricUnavailable
from captune.core.machine import is_out_of_memory
from captune.core.progress import Progress, track
from captune.images.open import open_image
from captune.metrics.corpus import Corpus, MetricResult, averaged
from captune.models.loading.errors import reason

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
    model, tokenizer, processor = _load(corpus.context.clip_model, corpus.context.device)

    def text_features(texts: Sequence[str]) -> Any:
        longest = model.config.text_config.max_position_embeddings
        prefixed = [PREFIX + text for text in texts]
        batch = tokenizer(prefixed, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return model.get_text_features(**batch.to(model.device))

    def image_features(files: Sequence[str]) -> Any:
        pixels = [processor(open_image(file), return_tensors="pt")["pixel_values"] for file in files]
        return model.get_image_features(pixel_values=torch.cat(pixels).to(model.device))

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
    return averaged({"clip_score": fit, "ref_clip_score": both}, {"clip_model": corpus.context.clip_model})


@lru_cache(maxsize=1)
def _load(name: str, device: str) -> tuple[Any, Any, Any]:
    """CLIP in fp32, its tokenizer and its image processor, by Hub name or folder. Kept for the next call."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    from captune.models.loading.devices import choose_device
    from captune.models.loading.pretrained import pretrained

    try:
        model = pretrained(CLIPModel, name).eval().to(choose_device(device))
        # Pillow's pixels are those of the paper; torchvision's, where it is installed, differ a little.
        return model, pretrained(AutoTokenizer, name), pretrained(AutoImageProcessor, name, backend="pil")
    except Exception as error:  # foreign files, read by foreign code: it raises whatever it likes
        if is_out_of_memory(error):
            raise
        raise MetricUnavailable(
            f"clip_score cannot load the CLIP '{name}': {reason(error)}",
            "Give --clip-model a folder that holds one, or a Hub name where there is a network.",
        ) from error


def _embedded(
    items: Sequence[str], features: Callable[[Sequence[str]], Any], progress: Progress, label: str
) -> np.ndarray:
    """Unit embeddings (N, D) of captions or images, `BATCH` at a time."""
    rows = []
    for start in track(range(0, len(items), BATCH), progress, label):
        with torch.inference_mode():
            rows.append(_unit(features(items[start : start + BATCH])))
    return np.concatenate(rows)


def _unit(features: Any) -> np.ndarray:
    vectors = getattr(features, "pooler_output", features)
    if vectors is None or not isinstance(vectors, torch.Tensor):
        raise CaptuneError("This CLIP gives no embeddings.", "Use a CLIPModel with projections.")
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
