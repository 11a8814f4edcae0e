"""Images of a library by meaning: vectors of the images in the space that texts share, by a matcher."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError, needing_torch
from captune.core.options import DEFAULT_MATCHER, WhereOptions
from captune.core.progress import SILENT, Progress
from captune.library.database import Database
from captune.library.vectors import VectorFile

# Vectors between two commits: so many images are embedded again after a stop.
_STEP = 256


class Embedder:
    """A matcher and the file of its vectors in a library."""

    def __init__(self, database: Database, model: str, run_on: WhereOptions, progress: Progress = SILENT) -> None:
        """Load the matcher; raises `CaptuneError` where there is none of that name."""
        with needing_torch():
            from captune.models.loading.identity import identity_of
            from captune.models.matcher import ADVICE, load_matcher

        self.progress = progress
        self.matcher = load_matcher(model, run_on.device, progress)
        if self.matcher.image_vectors > 1:
            raise CaptuneError(
                f"{model} has {self.matcher.image_vectors} vectors of an image, and a library has one.", ADVICE
            )
        identity = identity_of(model)
        name = os.path.abspath(os.path.expanduser(model)) if os.path.isdir(os.path.expanduser(model)) else model
        size = self.vectors_of(["a photo"]).shape[1]
        self.file = VectorFile(database, name, "" if identity is None else identity.digest, size)

    def vectors_of(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts, fp32 (texts, size); warns of those of which only the beginning is read."""
        self.matcher.warn_cut(texts, self.progress)
        found: np.ndarray = self.matcher.embed_texts(texts).float().cpu().numpy()
        return found

    def vector_of_image(self, image: Any) -> np.ndarray:
        """The unit vector of an image, fp32 (size,); raises `ImageError`.

        It is a path, bytes, a PIL image, or an array of the pixels that the matcher takes (3, height, width), uint8.
        """
        from captune.images.batches import read_pixels

        pixels = image if isinstance(image, np.ndarray) else read_pixels(image, self.matcher.pixels)
        found: np.ndarray = self.matcher.embed_images(self.matcher.encode_all([pixels])).float().cpu().numpy()[0]
        return found

    def add_missing(self, folder: Path, progress: Progress = SILENT) -> dict[str, str]:
        """Embed what has no vector yet; the reasons for images that could not be read, by path."""
        from captune.inference.match import encode_images

        todo = {os.path.join(folder, path): (image, digest) for image, path, digest in self.file.missing()}
        failed: dict[str, str] = {}
        images: list[tuple[int, str]] = []
        vectors: list[np.ndarray] = []

        def keep() -> None:
            if images:
                self.file.add([image for image, _ in images], np.concatenate(vectors), [each for _, each in images])
            images.clear()
            vectors.clear()

        for paths, patches in encode_images(self.matcher, list(todo), failed, progress, "Embedding"):
            images += [todo[path] for path in paths]
            vectors.append(self.matcher.embed_images(patches).float().cpu().numpy())
            if len(images) >= _STEP:
                keep()
        keep()
        return {os.path.relpath(path, folder): reason for path, reason in failed.items()}


def embedder_of(database: Database) -> str:
    """The name of the model that most images of a library have a vector of; raises `CaptuneError` where none has."""
    return str(_most_used(database)["name"])


def stored_vectors(database: Database) -> VectorFile:
    """The vectors of that model, without loading it; raises `CaptuneError` where there are none."""
    row = _most_used(database)
    return VectorFile(database, row["name"], row["digest"], row["size"])


def _most_used(database: Database) -> sqlite3.Row:
    used = "FROM embedders e WHERE EXISTS (SELECT 1 FROM vectors v WHERE v.embedder = e.id)"
    rows = database.connection.execute(f"SELECT e.* {used} ORDER BY e.id").fetchall()
    if len(rows) > 1:  # counting takes a while where there are many
        count = "(SELECT count(*) FROM vectors v WHERE v.embedder = e.id)"
        rows = database.connection.execute(f"SELECT e.* {used} ORDER BY {count} DESC, e.id").fetchall()
    if not rows:
        raise CaptuneError(
            "No image of this library has a vector yet.",
            f"Make them: {database.command('library add', '--embed', DEFAULT_MATCHER)}",
        )
    return rows[0]
