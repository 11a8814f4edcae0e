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
from torch import Tensor

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import as_paths, atomic_file
from captune.core.files.limits import open_arrays
from captune.core.files.paths import Images, mark_written, written_here
from captune.core.options import DEFAULT_MATCHER, TableOptions
from captune.core.progress import SILENT, Progress, track
from captune.datasets.sources.listing import find_image_paths
from captune.images.batches import stream_pixels
from captune.models.blip_matcher import BlipMatcher
from captune.models.loading.identity import identity_of
from captune.models.matcher import Matcher, cosines_of, full_name, load_matcher

BATCH = 16
# Images that the model's own processor shrinks are in memory as large as they are.
LARGE_BATCH, LARGE_WORKERS = 4, 2


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors (images, size) of images by path; `model` made them, `failed` could not be read.

    BLIP-2 has several of each image: (images, vectors, size).
    `digest` is that of the model's files; empty where it is not known.
    """

    images: tuple[str, ...]
    vectors: np.ndarray
    model: str
    failed: dict[str, str]
    digest: str = ""

    def save(self, path: str | Path) -> None:
        """As .npz: `images`, `vectors`, `model`, `digest`."""
        with atomic_file(path, "wb") as file:
            model, digest = np.array(self.model), np.array(self.digest)
            np.savez(file, images=np.array(self.images), vectors=self.vectors, model=model, digest=digest)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """What `save` wrote, here or in an earlier version; raises `CaptuneError` for anything else."""
        try:
            with open_arrays(path) as saved:
                images, vectors = tuple(map(str, saved["images"])), saved["vectors"]
                if vectors.ndim not in (2, 3) or len(images) != len(vectors) or vectors.dtype.kind != "f":
                    raise ValueError(f"vectors of shape {vectors.shape} ({vectors.dtype}) for {len(images):,} images")
                digest = str(saved["digest"]) if "digest" in saved else ""
                return cls(images, vectors, str(saved["model"]), {}, digest)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CaptuneError(f"{path} holds no embeddings: {error}.", "Make them with captune embed.") from None


@dataclass(frozen=True)
class Match:
    """An image and a text: how likely they belong together, and the cosine of their vectors.

    `probability` (0–1) is that of the pair by itself, None where the model has none (CLIP); then `share` (0–1) is
    that of the text among all texts of the image, which add up to 1; None of one text alone. `cut`: the model read
    only the text's beginning.
    """

    image: str
    text: str
    probability: float | None
    similarity: float
    share: float | None = None
    cut: bool = False


def encode_images(
    matcher: Matcher, images: Sequence[str], failed: dict[str, str], progress: Progress, label: str
) -> Iterator[tuple[list[str], Tensor]]:
    """Paths and features in batches; what cannot be read goes to `failed` with its reason."""
    batch_size, workers = (BATCH, 0) if matcher.pixels.size else (LARGE_BATCH, LARGE_WORKERS)

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        stream = stream_pixels(((path, path) for path in images), matcher.pixels, workers=workers)
        for path, pixels in track(stream, progress, label, len(images)):
            if isinstance(pixels, CaptuneError):
                failed[path] = getattr(pixels, "reason", "") or pixels.message
            else:
                yield path, pixels

    stream = readable()
    while batch := list(islice(stream, batch_size)):
        yield [path for path, _ in batch], matcher.encode_all([pixels for _, pixels in batch])


def embed_images(matcher: Matcher, images: Sequence[str], model: str, progress: Progress = SILENT) -> Embeddings:
    """Vectors of all images that can be read."""
    names: list[str] = []
    rows: list[np.ndarray] = []
    failed: dict[str, str] = {}
    for some, features in encode_images(matcher, images, failed, progress, "Embedding"):
        names += some
        rows.append(matcher.embed_images(features).float().cpu().numpy())
    vectors = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    return Embeddings(tuple(names), vectors, model, failed)


def match_all(
    matcher: Matcher, images: Sequence[str], texts: Sequence[str], failed: dict[str, str], progress: Progress
) -> Iterator[Match]:
    """Every image with every text."""
    vectors, cut = matcher.embed_texts(texts), matcher.cut(texts)
    for names, features in encode_images(matcher, images, failed, progress, "Matching"):
        for name, pairs in zip(names, pairs_of(matcher, features, texts, vectors, cut), strict=True):
            yield from (replace(pair, image=name) for pair in pairs)


def match_pixels(matcher: Matcher, images: Sequence[np.ndarray], texts: Sequence[Sequence[str]]) -> list[list[Match]]:
    """Images (3, height, width), uint8, as the matcher's `pixels` prepared them, each with texts of its own.

    The matches name no images.
    """
    matches = []
    features = matcher.encode_all(images)
    for row, own_texts in enumerate(texts):
        vectors, cut = matcher.embed_texts(own_texts), matcher.cut(own_texts)
        matches += pairs_of(matcher, features[row : row + 1], own_texts, vectors, cut)
    return matches


@torch.inference_mode()
def pairs_of(
    matcher: Matcher, features: Tensor, texts: Sequence[str], vectors: Tensor, cut: Sequence[bool]
) -> list[list[Match]]:
    """For each image's features its matches with all texts, whose `vectors` (texts, size) these are."""
    near = cosines_of(matcher.embed_images(features), vectors)
    chances = matcher.probabilities(features, texts, near).float().cpu().tolist()
    cosines = near.float().cpu().tolist()
    found = []
    for row, row_cosines in zip(chances, cosines, strict=True):
        pairs = zip(texts, row, row_cosines, cut, strict=True)
        if not matcher.shared:
            found.append([Match("", text, chance, cosine, cut=is_cut) for text, chance, cosine, is_cut in pairs])
        else:
            alone = len(texts) == 1
            found.append([
                Match("", text, None, cosine, None if alone else share, is_cut) for text, share, cosine, is_cut in pairs
            ])  # fmt: skip
    return found


def match_embeddings(matcher: Matcher, embeddings: Embeddings, texts: Sequence[str]) -> list[list[Match]]:
    """For each embedded image its matches with all texts, by vectors alone: of a matcher without a head."""
    vectors = torch.from_numpy(embeddings.vectors).to(matcher.device, torch.float32)
    every = pairs_of(matcher, vectors, texts, matcher.embed_texts(texts), matcher.cut(texts))
    return [
        [replace(pair, image=image) for pair in pairs] for image, pairs in zip(embeddings.images, every, strict=True)
    ]


def retrieve(
    matcher: Matcher,
    embeddings: Embeddings,
    texts: Sequence[str],
    *,
    best: int,
    for_texts: bool,
    candidates: int = 32,
    progress: Progress = SILENT,
) -> list[Match]:
    """For each text its `best` images, or for each image its `best` texts, the likeliest first.

    With a head as BLIP's authors do: the nearest `candidates` by their vectors, put in order by probability.
    """
    if not embeddings.images:
        return []
    if isinstance(matcher, BlipMatcher):
        groups = _judged(matcher, embeddings, texts, max(best, candidates), for_texts, progress)
        return [pair for group in groups for pair in sorted(group, key=lambda m: -(m.probability or 0))[:best]]
    near = _cosines(matcher, embeddings, texts)
    if not for_texts:
        rows = np.argsort(-near, axis=1, kind="stable")[:, :best]
        every = match_embeddings(matcher, embeddings, texts)
        return [pairs[number] for pairs, row in zip(every, rows.tolist(), strict=True) for number in row]
    # The best images of all texts alone: there may be a million others.
    columns = np.argsort(-near, axis=0, kind="stable")[:best].T
    best_images = list(dict.fromkeys(columns.ravel().tolist()))
    names = tuple(embeddings.images[number] for number in best_images)
    found = replace(embeddings, images=names, vectors=embeddings.vectors[best_images])
    pairs_by_image = dict(zip(best_images, match_embeddings(matcher, found, texts), strict=True))
    return [pairs_by_image[image][text] for text, column in enumerate(columns.tolist()) for image in column]


def _cosines(matcher: Matcher, embeddings: Embeddings, texts: Sequence[str]) -> np.ndarray:
    """Those of all images and texts (images, texts)."""
    vectors = torch.from_numpy(np.asarray(embeddings.vectors, np.float32))
    return cosines_of(vectors, matcher.embed_texts(texts).float().cpu()).numpy()


def _judged(
    matcher: BlipMatcher,
    embeddings: Embeddings,
    texts: Sequence[str],
    candidates: int,
    for_texts: bool,
    progress: Progress,
) -> list[list[Match]]:
    """For each text, or each image, the nearest by vector with the probability of the head."""
    cut, cosines = matcher.cut(texts), _cosines(matcher, embeddings, texts)
    near = cosines.T if for_texts else cosines
    texts_of: dict[str, list[int]] = {}
    for row in range(len(near)):
        for column in np.argsort(-near[row], kind="stable")[:candidates]:
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
                cosine = float(cosines[position[name], text])
                found = Match(name, texts[text], chance, cosine, cut=cut[text])
                groups[texts[text] if for_texts else name].append(found)
    return list(groups.values())


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

    Options are those of `captune match --help`: with `find` the `best` images of each text, or texts of each image,
    the likeliest first. `model` is BLIP's or BLIP-2's matching, a CLIP, a SigLIP or another dual encoder of
    `transformers`; by default that of the .npz, else the Hub's `Salesforce/blip-itm-base-coco`.
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
    name, embedded = model or DEFAULT_MATCHER, None
    if saved is not None:
        embedded, name = _load_embeddings(saved, model, values.tables)
    matcher = load_matcher(name, values.run_on.device, progress)
    matcher.warn_cut(texts, progress)
    if embedded is not None and embedded.vectors.shape[-1] != (size := matcher.embed_texts(texts[:1]).shape[1]):
        raise CaptuneError(
            f"{saved} has vectors of {embedded.vectors.shape[-1]} numbers, and those of {name} have {size}.",
            "Make them again with captune embed.",
        )
    if find == "all":
        if embedded is not None and not isinstance(matcher, BlipMatcher):
            rows = match_embeddings(matcher, embedded, texts)
            return Matches(tuple(pair for row in rows for pair in row), embedded.failed)
        images, failed = (find_image_paths(paths), {}) if embedded is None else (embedded.images, embedded.failed)
        return Matches(tuple(match_all(matcher, images, texts, failed, progress)), failed)
    embedded = embedded or embed_images(matcher, find_image_paths(paths), name, progress)
    by_text = find == "pictures"
    pairs = retrieve(matcher, embedded, texts, best=best, candidates=candidates, for_texts=by_text, progress=progress)
    return Matches(tuple(pairs), embedded.failed)


def _load_embeddings(path: str, model: str | None, tables: TableOptions) -> tuple[Embeddings, str]:
    """Saved embeddings, of those images that the file may name, and the name of the model that reads texts for them.

    Without `model` it is the one that the file names, where captune wrote the file on this machine. Raises
    `CaptuneError` for another model, or where its files are others than those that the vectors were made with.
    """
    embedded = Embeddings.load(path)
    folder, file_name = os.path.split(path)
    name = model or (embedded.model if written_here(folder, [file_name]) else DEFAULT_MATCHER)
    identity = identity_of(name) if embedded.digest else None
    same = full_name(name) == full_name(embedded.model)
    if identity is not None and identity.digest != embedded.digest and same:
        raise CaptuneError(
            f"{path} was made by {name} before its files changed.", f"Make it again: captune embed … --model {name}"
        )
    if not same and (identity is None or identity.digest != embedded.digest):
        raise CaptuneError(f"{path} was made by {embedded.model}, not {name}.", f"Use --model {embedded.model}.")
    embedded = inside(embedded, path, tables)
    if not embedded.images:
        raise CaptuneError(f"{path} names no image that may be read.", next(iter(embedded.failed.values()), ""))
    return embedded, name


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
    """Vectors of images in the space that texts share, saved as .npz (`images`, `vectors`, `model`, `digest`).

    `model` is one that `match` takes; by default the Hub's `Salesforce/blip-itm-base-coco`.
    """
    if not str(out).endswith(".npz"):
        raise UsageError(f"{out} does not end in .npz.", "For example: --out photos.npz")
    paths = find_image_paths(as_paths(pictures))
    values = resolve("embed", file=config, environment=environment, flags=options, sets=sets).values
    name = model or DEFAULT_MATCHER
    embedded = embed_images(load_matcher(name, values.run_on.device, progress), paths, full_name(name), progress)
    if not embedded.images:
        raise CaptuneError("None of the images could be read.", next(iter(embedded.failed.values()), ""))
    identity = identity_of(name)
    embedded = replace(embedded, digest="" if identity is None else identity.digest)
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
