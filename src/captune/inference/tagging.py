"""Keywords by a matcher: the labels that are likely of an image, each image and each label encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional

from captune.captions.tags.labels import Labels
from captune.captions.tags.row import Keyword, TagRow
from captune.core.options.tag import TagOptions
from captune.core.progress import Progress
from captune.inference.match import encode_images
from captune.models.blip_matcher import BlipMatcher
from captune.models.dual_encoder import DualEncoder
from captune.models.matcher import Matcher, cosines_of

TEXTS = 64
# Least probability of a keyword: of one that stands for itself, and of one that shares 1 with all other labels.
ALONE, SHARED = 0.5, 0.1


class Tagger:
    """The labels of images by the probability that a matcher gives them."""

    def __init__(self, matcher: Matcher, labels: Labels, options: TagOptions, progress: Progress) -> None:
        self.matcher, self.labels, self.options = matcher, labels, options
        self.threshold = (SHARED if matcher.shared else ALONE) if options.threshold is None else options.threshold
        self._names = [(number, name) for number, label in enumerate(labels.labels) for name in label.names]
        self._first = torch.tensor([number for number, _ in self._names], device=matcher.device)
        prompts = [prompt for _, name in self._names for prompt in labels.prompts(name)]
        matcher.warn_cut(prompts, progress)
        with progress.task("Labels", len(prompts)) as task:
            rows = []
            for start in range(0, len(prompts), TEXTS):
                rows.append(matcher.embed_texts(prompts[start : start + TEXTS]).float())
                task.advance(len(rows[-1]))
        vectors = torch.cat(rows).view(len(self._names), len(labels.templates), -1)
        self._vectors = functional.normalize(vectors.mean(1), dim=-1)

    def rows(self, images: Sequence[str], progress: Progress) -> Iterator[TagRow]:
        """A row for each image, in order, whatever happens to any of them."""
        failed: dict[str, str] = {}
        waiting = iter(images)

        def until(name: str | None) -> Iterator[TagRow]:
            """The rows of images that could not be read, before the image `name`."""
            for image in waiting:
                if image == name:
                    return
                yield TagRow(image, (), "error", failed.get(image, "could not be read"))

        for names, features in encode_images(self.matcher, images, failed, progress, "Tagging"):
            for name, keywords in zip(names, self._keywords(features), strict=True):
                yield from until(name)
                yield TagRow(name, keywords)
        yield from until(None)

    def _keywords(self, features: torch.Tensor) -> Iterator[tuple[Keyword, ...]]:
        """The keywords of each image, the likeliest first."""
        vectors = self.matcher.embed_images(features).float()
        cosines = cosines_of(vectors, self._vectors)
        count = len(self.labels.labels)
        near = cosines.new_full((len(cosines), count), -1.0)
        near.scatter_reduce_(1, self._first.expand(len(cosines), -1), cosines, "amax")
        for row in range(len(near)):
            if isinstance(self.matcher, DualEncoder):
                chances = self.matcher.of_cosines(near[row]).cpu().numpy()
            else:
                chances = self._judged(features[row : row + 1], cosines[row], near[row])
            order = np.argsort(-chances, kind="stable")[: self.options.best]
            yield tuple(
                Keyword(self.labels.labels[index].keyword, float(chances[index]))
                for index in order
                if chances[index] >= self.threshold
            )

    def _judged(self, patches: torch.Tensor, cosines: torch.Tensor, near: torch.Tensor) -> np.ndarray:
        """BLIP's probabilities of the nearest labels, each by its nearest name; NaN of the others."""
        assert isinstance(self.matcher, BlipMatcher)
        chances = np.full(len(near), np.nan)
        nearest = torch.argsort(near, descending=True, stable=True)[: max(self.options.best, self.options.candidates)]
        best_name: dict[int, int] = {}
        for number in torch.argsort(cosines, descending=True, stable=True).tolist():
            best_name.setdefault(self._names[number][0], number)
        chosen = nearest.tolist()
        prompts = [prompt for label in chosen for prompt in self.labels.prompts(self._names[best_name[label]][1])]
        found = self.matcher.probability(patches.expand(len(prompts), -1, -1), prompts).cpu().numpy()
        chances[chosen] = found.reshape(len(chosen), -1).mean(1)
        return chances
