"""Images and texts that belong together: embeddings, probabilities, retrieval in both directions."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file
from captune.core.progress import SILENT, Progress, track
from captune.core.unpacking import open_arrays
from captune.engine.pictures import stream_pixels
from captune.models.blip_matcher import BlipMatcher

BATCH = 16


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors (images, size) of images by path; `model` made them, `failed` could not be read."""

    images: tuple[str, ...]
    vectors: np.ndarray
    model: str
    failed: dict[str, str]

    def save(self, path: str | Path) -> None:
        """As .npz: `images`, `vectors`, `model`."""
        with atomic_file(path, "wb") as file:
            np.savez(file, images=np.array(self.images), vectors=self.vectors, model=np.array(self.model))

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        try:
            with open_arrays(path) as saved:
                images, vectors = tuple(map(str, saved["images"])), saved["vectors"]
                if vectors.ndim != 2 or len(images) != len(vectors) or vectors.dtype.kind != "f":
                    raise ValueError(f"vectors of shape {vectors.shape} ({vectors.dtype}) for {len(images):,} images")
                return cls(images, vectors, str(saved["model"]), {})
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CaptuneError(f"{path} holds no embeddings: {error}.", "Make them with captune embed.") from None


@dataclass(frozen=True)
class Match:
    """An image and a text: the probability that they belong together, and the cosine of their vectors."""

    image: str
    text: str
    probability: float
    similarity: float


def encode_images(
    matcher: BlipMatcher, images: Sequence[str], failed: dict[str, str], progress: Progress, label: str
) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Paths and patches in batches; what cannot be read goes to `failed` with its reason."""
    waiting: list[tuple[str, np.ndarray]] = []

    def flush() -> tuple[list[str], torch.Tensor]:
        names, pixels = [name for name, _ in waiting], torch.from_numpy(np.stack([image for _, image in waiting]))
        waiting.clear()
        with torch.inference_mode():
            return names, matcher.encode(pixels)

    stream = stream_pixels(((path, path) for path in images), matcher.pixels)
    for path, pixels in track(stream, progress, label, len(images)):
        if isinstance(pixels, CaptuneError):
            failed[path] = getattr(pixels, "reason", "") or pixels.message
            continue
        waiting.append((path, pixels))
        if len(waiting) == BATCH:
            yield flush()
    if waiting:
        yield flush()


def embed(matcher: BlipMatcher, images: Sequence[str], model: str, progress: Progress = SILENT) -> Embeddings:
    """Vectors of all images that can be read."""
    names: list[str] = []
    rows: list[np.ndarray] = []
    failed: dict[str, str] = {}
    for some, patches in encode_images(matcher, images, failed, progress, "Embedding"):
        names += some
        rows.append(matcher.embed_images(patches).float().cpu().numpy())
    vectors = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    return Embeddings(tuple(names), vectors, model, failed)


def match_all(
    matcher: BlipMatcher, images: Sequence[str], texts: Sequence[str], failed: dict[str, str], progress: Progress
) -> Iterator[Match]:
    """Every image with every text."""
    vectors = matcher.embed_texts(texts)
    for names, patches in encode_images(matcher, images, failed, progress, "Matching"):
        near = (matcher.embed_images(patches) @ vectors.T).float().cpu()
        chances = torch.stack([matcher.probability(patches, [text] * len(names)) for text in texts], 1).cpu()
        for row, name in enumerate(names):
            for column, text in enumerate(texts):
                yield Match(name, text, float(chances[row, column]), float(near[row, column]))


def match_pixels(matcher: BlipMatcher, pixels: np.ndarray, texts: Sequence[Sequence[str]]) -> list[list[Match]]:
    """Pixels (images, 3, size, size), uint8, each with texts of its own; the matches name no images."""
    found = []
    with torch.inference_mode():
        patches = matcher.encode(torch.from_numpy(pixels))
        vectors = matcher.embed_images(patches)
        for row, own_texts in enumerate(texts):
            near = (matcher.embed_texts(own_texts) @ vectors[row]).float().cpu().tolist()
            together = patches[row : row + 1].expand(len(own_texts), -1, -1)
            chances = matcher.probability(together, own_texts).cpu().tolist()
            found.append([Match("", *each) for each in zip(own_texts, chances, near, strict=True)])
    return found


def retrieve(
    matcher: BlipMatcher,
    embeddings: Embeddings,
    texts: Sequence[str],
    *,
    best: int,
    for_texts: bool,
    candidates: int = 32,
    progress: Progress = SILENT,
) -> list[Match]:
    """For each text its `best` images, or for each image its `best` texts, the likeliest first.

    As BLIP's authors do: the nearest `candidates` by their vectors, put in order by probability.
    """
    vectors = matcher.embed_texts(texts).float().cpu().numpy()
    near = embeddings.vectors @ vectors.T
    near = near.T if for_texts else near
    texts_of: dict[str, list[int]] = {}
    for row in range(len(near)):
        for column in np.argsort(-near[row], kind="stable")[: max(best, candidates)]:
            number, text = (int(column), row) if for_texts else (row, int(column))
            texts_of.setdefault(embeddings.images[number], []).append(text)
    position = {image: n for n, image in enumerate(embeddings.images)}
    matches: list[Match] = []
    for names, patches in encode_images(matcher, list(texts_of), {}, progress, "Matching"):
        for row, name in enumerate(names):
            numbers = texts_of[name]
            together = patches[row : row + 1].expand(len(numbers), -1, -1)
            chances = matcher.probability(together, [texts[t] for t in numbers]).cpu().tolist()
            for text, chance in zip(numbers, chances, strict=True):
                cosine = float(embeddings.vectors[position[name]] @ vectors[text])
                matches.append(Match(name, texts[text], chance, cosine))
    groups: Iterable[list[Match]] = _grouped(matches, texts if for_texts else embeddings.images, for_texts)
    return [one for group in groups for one in sorted(group, key=lambda m: -m.probability)[:best]]


def _grouped(matches: list[Match], keys: Sequence[str], for_texts: bool) -> list[list[Match]]:
    by: dict[str, list[Match]] = {key: [] for key in keys}
    for match in matches:
        by[match.text if for_texts else match.image].append(match)
    return list(by.values())
