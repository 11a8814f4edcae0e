"""What lies in an export folder, as `captune-export.json` says it: written by the exporters, read without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import read_json, write_json

EXPORT = "captune-export.json"
EXPORT_REPORT = "export_report.json"
TOKENIZER = "tokenizer.json"
# 1 had the keys of all layers in one tensor, which had to be cut apart, and so copied, at every step.
FORMAT = 2
VISION, TEXT = "vision", "text"
# Keys and values of each layer, by the name before their kind and number; see docs/exports.md for shapes.
MEMORY, PAST, NEW = "memory", "said", "new"


def layer_names(name: str, layers: int) -> tuple[str, ...]:
    """`name_keys_0`, `name_keys_1` …, then `name_values_0` …."""
    return tuple(f"{name}_{kind}_{layer}" for kind in ("keys", "values") for layer in range(layers))


def output_names(graph: str, layers: int) -> tuple[str, ...]:
    """What comes out of `vision` or `text`, in this order."""
    return layer_names(MEMORY, layers) if graph == VISION else ("logits", *layer_names(NEW, layers))


@dataclass(frozen=True)
class ExportedPixels:
    """An image as `captune.images.preprocessing.to_pixels` makes it; `mean` and `std` are in the vision graph."""

    size: int
    resample: int
    shorter: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Exported:
    """An exported model: where it came from, and all that is needed beside its two graphs to caption.

    `model` is the name it was loaded by, `digest` the SHA-256 of its weights. Self-attention has
    `layers` × `heads` of `head_width`; the memory has as many, over `places` of the image.
    With `clean_up` spaces before punctuation are taken out of decoded text. `check` is what the
    comparison with the original found.
    """

    family: str
    model: str
    digest: str
    target: str
    precision: str
    pixels: ExportedPixels
    start: int
    end: int
    pad: int
    longest: int
    prompt: str
    generation: Mapping[str, Any]
    layers: int
    heads: int
    head_width: int
    places: int
    vocabulary: int
    clean_up: bool
    opset: int
    captune: str
    check: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Exported:
        """That of an export folder; raises `CaptuneError` for one of another format or a broken one."""
        path = folder / EXPORT
        found = read_json(path)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            version = found.get("format") if isinstance(found, dict) else None
            raise CaptuneError(
                f"{path} is of format {version}; this captune reads format {FORMAT}.",
                "Export the model again with this version, or install the one that wrote it.",
            )
        try:
            pixels = dict(found["pixels"])
            shape = ExportedPixels(**{**pixels, "mean": tuple(pixels["mean"]), "std": tuple(pixels["std"])})
            known = {one.name for one in fields(cls)}
            return cls(**{**{name: value for name, value in found.items() if name in known}, "pixels": shape})
        except (KeyError, TypeError, ValueError) as error:
            raise CaptuneError(f"{path} is not whole: {error}.", "Export the model again.") from None

    def write(self, folder: Path) -> None:
        """Write `captune-export.json` into a folder."""
        write_json(folder / EXPORT, asdict(self))


def export_folder(path: str | Path) -> Path | None:
    """The export folder that `path`, a folder or a file in it, stands for; None where it is none."""
    here = Path(os.path.expanduser(path))
    # os.path also answers for names that no file system takes.
    folder = here if os.path.isdir(here) else here.parent
    return folder if os.path.exists(here) and (folder / EXPORT).is_file() else None
