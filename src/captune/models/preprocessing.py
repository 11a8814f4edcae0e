"""How an image becomes a model's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captune.core.errors import CaptuneError


@dataclass(frozen=True)
class PixelSettings:
    """An image squashed to `size`² and normalised.

    With `shorter`, its shorter side becomes that many pixels and the middle square is cut
    out instead. `fast` takes the quicker way to nearly the same numbers.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    resample: int = 3
    shorter: int = 0
    fast: bool = False

    @classmethod
    def of(cls, processor: Any) -> PixelSettings:
        """Those of a `transformers` image processor; raises `CaptuneError` for one that does something else."""
        size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
        cut = bool(getattr(processor, "do_center_crop", False))
        side, shorter = int(size.get("height") or size.get("shortest_edge") or 0), 0
        if cut:
            side, shorter = int(crop.get("height") or 0), int(size.get("shortest_edge") or 0)
        square = size.get("height") == size.get("width") and crop.get("height") == crop.get("width")
        scaled = abs(float(getattr(processor, "rescale_factor", 1 / 255)) - 1 / 255) < 1e-9
        if not side or not square or not scaled or (cut and shorter and shorter < side):
            raise CaptuneError(
                f"The model prepares its images in a way that captune does not know: {type(processor).__name__} with "
                f"size {size} and crop {crop or 'none'}.",
                "Use a model whose images are squares of 8-bit values.",
            )
        plain = not getattr(processor, "do_normalize", True)
        mean = (0.0,) * 3 if plain else tuple(processor.image_mean)
        std = (1.0,) * 3 if plain else tuple(processor.image_std)
        return cls(side, mean, std, int(processor.resample), shorter)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Levels (…, 3, size, size) of 0–255 as the model takes them, fp32, bit for bit as transformers computes."""
        mean, std = (torch.tensor(tuple(each), device=pixels.device).view(3, 1, 1) for each in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)
