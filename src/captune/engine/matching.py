"""Pictures and texts that belong together: embeddings, probabilities, retrieval in both directions."""

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
    """Unit vectors (pictures, size) of pictures by path; `model` made them, `failed` could not be read."""

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
            with open_arrays(path) as kept:
                images, vectors = tuple(map(str, kept["images"])), kept["vectors"]
                if vectors.ndim != 2 or len(images) != len(vectors) or vectors.dtype.kind != "f":
                    raise ValueError(f"vectors of shape {vectors.shape} ({vectors.dtype}) for {len(images):,} images")
                return cls(images, vectors, str(kept["model"]), {})
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CaptuneError(f"{path} holds no embeddings: {error}.", "Make them with captune embed.") from None


@dataclass(frozen=True)
class Match:
    """A picture and a text: the probability that they belong together, and the cosine of their vectors."""

    image: str
    text: str
    probability: float
    similarity: float


def looked_at(
    matcher: BlipMatcher, images: Sequence[str], failed: dict[str, str], progress: Progress, label: str
) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Paths and patches in batches; what cannot be read goes to `failed` with its reason."""
    waiting: list[tuple[str, np.ndarray]] = []

    def flush() -> tuple[list[str], torch.Tensor]:
        names, seen = [name for name, _ in waiting], torch.from_numpy(np.stack([pixels for _, pixels in waiting]))
        waiting.clear()
        with torch.inference_mode():
            return names, matcher.look(seen)

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
    """Vectors of all pictures that can be read."""
    names: list[str] = []
    rows: list[np.ndarray] = []
    failed: dict[str, str] = {}
    for some, patches in looked_at(matcher, images, failed, progress, "Looking"):
        names += some
        rows.append(matcher.embed_pictures(patches).float().cpu().numpy())
    vectors = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    return Embeddings(tuple(names), vectors, model, failed)


def match_all(
    matcher: BlipMatcher, images: Sequence[str], texts: Sequence[str], failed: dict[str, str], progress: Progress
) -> Iterator[Match]:
    """Every picture with every text."""
    vectors = matcher.embed_texts(texts)
    for names, patches in looked_at(matcher, images, failed, progress, "Matching"):
        near = (matcher.embed_pictures(patches) @ vectors.T).float().cpu()
        chances = torch.stack([matcher.probability(patches, [text] * len(names)) for text in texts], 1).cpu()
        for row, name in enumerate(names):
            for column, text in enumerate(texts):
                yield Match(name, text, float(chances[row, column]), float(near[row, column]))


def match_pixels(matcher: BlipMatcher, seen: np.ndarray, texts: Sequence[Sequence[str]]) -> list[list[Match]]:
    """Pixels (pictures, 3, size, size), uint8, each with texts of its own; the matches name no pictures."""
    found = []
    with torch.inference_mode():
        patches = matcher.look(torch.from_numpy(seen))
        vectors = matcher.embed_pictures(patches)
        for row, asked in enumerate(texts):
            near = (matcher.embed_texts(asked) @ vectors[row]).float().cpu().tolist()
            chances = matcher.probability(patches[row : row + 1].expand(len(asked), -1, -1), asked).cpu().tolist()
            found.append([Match("", *each) for each in zip(asked, chances, near, strict=True)])
    return found


def find(
    matcher: BlipMatcher,
    pictures: Embeddings,
    texts: Sequence[str],
    *,
    best: int,
    for_texts: bool,
    candidates: int = 32,
    progress: Progress = SILENT,
) -> list[Match]:
    """For each text its `best` pictures, or for each picture its `best` texts, the likeliest first.

    As BLIP's authors do: the nearest `candidates` by their vectors, put in order by probability.
    """
    vectors = matcher.embed_texts(texts).float().cpu().numpy()
    near = pictures.vectors @ vectors.T
    near = near.T if for_texts else near
    asked: dict[str, list[int]] = {}
    for row in range(len(near)):
        for column in np.argsort(-near[row], kind="stable")[: max(best, candidates)]:
            picture, text = (int(column), row) if for_texts else (row, int(column))
            asked.setdefault(pictures.images[picture], []).append(text)
    place = {image: n for n, image in enumerate(pictures.images)}
    found: list[Match] = []
    for names, patches in looked_at(matcher, list(asked), {}, progress, "Matching"):
        for row, name in enumerate(names):
            wanted = asked[name]
            together = patches[row : row + 1].expand(len(wanted), -1, -1)
            chances = matcher.probability(together, [texts[t] for t in wanted]).cpu().tolist()
            for text, chance in zip(wanted, chances, strict=True):
                cosine = float(pictures.vectors[place[name]] @ vectors[text])
                found.append(Match(name, texts[text], chance, cosine))
    groups: Iterable[list[Match]] = _grouped(found, texts if for_texts else pictures.images, for_texts)
    return [one for group in groups for one in sorted(group, key=lambda m: -m.probability)[:best]]


def _grouped(found: list[Match], keys: Sequence[str], for_texts: bool) -> list[list[Match]]:
    by: dict[str, list[Match]] = {key: [] for key in keys}
    for match in found:
        by[match.text if for_texts else match.image].append(match)
    return list(by.values())
