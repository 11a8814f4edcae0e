"""In how many images' references each n-gram stands: what CIDEr weighs n-grams with."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file
from captune.core.unpacking import open_arrays
from captune.metrics.ngrams import distinct_sorted, gram_counts
from captune.metrics.ptb_tokenizer import tokenize

ORDERS = 4
# Stands after the last word where the end of a caption counts as a word; no token is a control character.
END = "\x03"
# What a run calls its training references' own.
FILE = "document_frequencies.npz"
FORMAT = "captune document frequencies 1"


@dataclass(frozen=True)
class DocumentFrequencies:
    """Document frequencies of 1- to 4-grams over a set of images.

    `counts` maps an n-gram (tokens joined by spaces; `END` after the last word of a
    reference is one) to the number of images with it in at least one reference. N-grams of
    a single image are left out: one that nobody wrote counts as written once, so they weigh
    the same. `images` is the number of images, and `name` says which set it was
    ("coco-val"), for reports. Scores made with different frequencies are not comparable.
    """

    counts: Mapping[str, int]
    images: int
    name: str

    @classmethod
    def of(cls, references: Iterable[Sequence[str]], name: str) -> DocumentFrequencies:
        """Count over images, each given by its references as they were written."""
        groups = [[[*tokenize(reference).split(), END] for reference in group] for group in references]
        sentences = list(chain.from_iterable(groups))
        image = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        counts: dict[str, int] = {}
        for found in gram_counts(sentences, ORDERS):
            width = max(1, found.distinct)
            frequency = np.bincount(
                distinct_sorted(image[found.sentence] * width + found.gram) % width, minlength=found.distinct
            )
            for gram in np.flatnonzero(frequency > 1).tolist():
                sentence, at = found.example[gram].tolist()
                counts[" ".join(sentences[sentence][at : at + found.order])] = int(frequency[gram])
        return cls(counts, len(groups), name)

    @classmethod
    def find(cls, name: str) -> DocumentFrequencies | None:
        """Those that an option names: `own` (None: the references measured), a run's, or a saved file's."""
        if name == "own":
            return None
        path = Path(name)
        return cls.load(path / FILE if path.is_dir() else path)

    def of_grams(self, grams: Iterable[str]) -> np.ndarray:
        """How many images have each n-gram, at least 1."""
        return np.fromiter((self.counts.get(gram, 1) for gram in grams), np.int64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a compressed .npz file, at once or not at all."""
        text = "\n".join(self.counts).encode()
        with atomic_file(path, "wb") as file:
            np.savez_compressed(
                file,
                format=np.array(FORMAT),
                name=np.array(self.name),
                images=np.array(self.images),
                grams=np.frombuffer(text, np.uint8),
                counts=np.fromiter(self.counts.values(), np.int64, len(self.counts)),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentFrequencies:
        """Read what `save` wrote; a file that is missing, broken or of another kind raises `CaptuneError`."""
        try:
            with open_arrays(path) as arrays:
                if "format" not in arrays or str(arrays["format"]) != FORMAT:
                    raise ValueError("another kind of file")
                text = arrays["grams"].tobytes().decode()
                counts = dict(zip(text.split("\n") if text else (), arrays["counts"].tolist(), strict=True))
                return cls(counts, int(arrays["images"]), str(arrays["name"]))
        except FileNotFoundError:
            raise CaptuneError(f"There is no file {path}.", "Check the path.") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise CaptuneError(
                f"{path} does not hold document frequencies ({str(error).partition('.')[0]}).",
                "A run has them as document_frequencies.npz; "
                "`captune score --save-document-frequencies FILE` writes those of any references.",
            ) from None
