"""Matching of texts and images: embeddings, probabilities, retrieval (`captune match`, `captune embed`)."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import as_paths, atomic_file
from captune.core.files.limits import open_arrays
from captune.core.files.paths import Images, mark_written, written_here
from captune.core.options import TableOptions, WhereOptions
from captune.core.progress import SILENT, Progress, track
from captune.datasets.sources.listing import find_image_paths
from captune.images.batches import stream_pixels
from captune.models.blip_matcher import MATCHER, BlipMatcher
from captune.models.clip_matcher import ClipMatcher

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
    matcher: BlipMatcher | ClipMatcher, images: Sequence[str], failed: dict[str, str], progress: Progress, label: str
) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Paths and patches in batches; what cannot be read goes to `failed` with its reason."""

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        stream = stream_pixels(((path, path) for path in images), matcher.pixels)
        for path, pixels in track(stream, progress, label, len(images)):
            if isinstance(pixels, CaptuneError):
                failed[path] = getattr(pixels, "reason", "") or pixels.message
            else:
                yield path, pixels

    stream = readable()
    while batch := list(islice(stream, BATCH)):
        with torch.inference_mode():
            patches = matcher.encode(torch.from_numpy(np.stack([pixels for _, pixels in batch])))
        yield [path for path, _ in batch], patches


def embed_images(matcher: BlipMatcher, images: Sequence[str], model: str, progress: Progress = SILENT) -> Embeddings:
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
    matches = []
    with torch.inference_mode():
        patches = matcher.encode(torch.from_numpy(pixels))
        vectors = matcher.embed_images(patches)
        for row, own_texts in enumerate(texts):
            near = (matcher.embed_texts(own_texts) @ vectors[row]).float().cpu().tolist()
            together = patches[row : row + 1].expand(len(own_texts), -1, -1)
            chances = matcher.probability(together, own_texts).cpu().tolist()
            matches.append([Match("", *each) for each in zip(own_texts, chances, near, strict=True)])
    return matches


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
    groups: dict[str, list[Match]] = {key: [] for key in (texts if for_texts else embeddings.images)}
    for names, patches in encode_images(matcher, list(texts_of), {}, progress, "Matching"):
        for row, name in enumerate(names):
            numbers = texts_of[name]
            together = patches[row : row + 1].expand(len(numbers), -1, -1)
            chances = matcher.probability(together, [texts[t] for t in numbers]).cpu().tolist()
            for text, chance in zip(numbers, chances, strict=True):
                cosine = float(embeddings.vectors[position[name]] @ vectors[text])
                groups[texts[text] if for_texts else name].append(Match(name, texts[text], chance, cosine))
    return [one for group in groups.values() for one in sorted(group, key=lambda m: -m.probability)[:best]]


Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Matches:
    """Pairs of images and texts, and the images that could not be read with their reasons."""

    pairs: tuple[Match, ...]
    failed: dict[str, str]


def match(
    pictures: Paths,
    texts: str | Sequence[str],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Matches:
    """How well texts fit images (files, folders, patterns, or an .npz of `captune embed`).

    Options are those of `captune match --help`: with `find` the `best` images of each text, or
    texts of each image, the likeliest first. Without `model` the Hub's `Salesforce/blip-itm-base-coco` is used.
    """
    values = resolve("match", file=config, environment=environment, flags=options, sets=sets).values
    find, best, candidates = values.match.find, values.match.best, values.match.candidates
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not all(text.strip() for text in texts):
        raise UsageError("There is no text to match, or an empty one.", "Give texts that are not empty.")
    paths = as_paths(pictures)
    saved = next((str(path) for path in paths if str(path).endswith(".npz")), None)
    if saved is not None and len(paths) > 1:
        raise UsageError("Embeddings are matched alone.", "Name one .npz, or images.")
    matcher, name = load_matcher(model, values.run_on, progress)
    embedded = None if saved is None else _load_embeddings(saved, name, values.tables)
    if find == "all":
        images, failed = (find_image_paths(paths), {}) if embedded is None else (embedded.images, embedded.failed)
        return Matches(tuple(match_all(matcher, images, texts, failed, progress)), failed)
    embedded = embedded or embed_images(matcher, find_image_paths(paths), name, progress)
    by_text = find == "pictures"
    pairs = retrieve(matcher, embedded, texts, best=best, candidates=candidates, for_texts=by_text, progress=progress)
    return Matches(tuple(pairs), embedded.failed)


def _load_embeddings(path: str, model: str, tables: TableOptions) -> Embeddings:
    """Saved embeddings of a model, of those images that the file may name."""
    embedded = Embeddings.load(path)
    if embedded.model != model:
        raise CaptuneError(f"{path} was made by {embedded.model}, not {model}.", f"Use --model {embedded.model}.")
    embedded = inside(embedded, path, tables)
    if not embedded.images:
        raise CaptuneError(f"{path} names no image that may be read.", next(iter(embedded.failed.values()), ""))
    return embedded


def embed(
    pictures: Paths,
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Embeddings:
    """Vectors of images in the space that texts share, saved as .npz (`images`, `vectors`, `model`)."""
    if not str(out).endswith(".npz"):
        raise UsageError(f"{out} does not end in .npz.", "For example: --out photos.npz")
    paths = find_image_paths(as_paths(pictures))
    values = resolve("embed", file=config, environment=environment, flags=options, sets=sets).values
    matcher, name = load_matcher(model, values.run_on, progress)
    embedded = embed_images(matcher, paths, name, progress)
    if not embedded.images:
        raise CaptuneError("None of the images could be read.", next(iter(embedded.failed.values()), ""))
    embedded.save(str(out))
    mark_written(Path(out).parent, [Path(out).name])
    return embedded


def inside(embedded: Embeddings, file: str, tables: TableOptions) -> Embeddings:
    """The embeddings without images that lie outside of the file's folder, or of the folder of images in `tables`."""
    folder, name = os.path.split(file)
    own = written_here(folder, [name])  # by `embed`, on this machine
    boundary = Images(Path(tables.images) if tables.images else None, tables.allow_outside or own).boundary(folder)
    allowed = [index for index, name in enumerate(embedded.images) if boundary.holds(name)]
    failed = {name: boundary.reason(name) for name in embedded.images if not boundary.holds(name)}
    names = tuple(embedded.images[index] for index in allowed)
    return replace(embedded, images=names, vectors=embedded.vectors[allowed], failed={**embedded.failed, **failed})


def load_matcher(model: str | None, run_on: WhereOptions, progress: Progress = SILENT) -> tuple[BlipMatcher, str]:
    """A matcher on its device, and its name (a folder: its whole path)."""
    from captune.models.loading.devices import choose_device
    from captune.models.loading.loader import load_pretrained

    name = model or MATCHER
    with progress.task(f"Loading {name}"):
        matcher = load_pretrained(BlipMatcher.load, name)
        matcher.model.to(choose_device(run_on.device))
    return matcher, str(Path(name).resolve()) if Path(name).exists() else name
