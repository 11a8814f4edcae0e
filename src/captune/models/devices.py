"""Which device and number type a model runs in."""

from __future__ import annotations

import torch

from captune.core.errors import CaptuneError, UsageError
from captune.models.environment import cpu_words


def choose_device(name: str = "auto") -> torch.device:
    """The device for `auto` (CUDA, then MPS, then CPU), or the named one if it is there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CaptuneError(
            "There is no CUDA device here.", "Use --device cpu, or check the driver with `captune doctor`."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CaptuneError(f"There is no {name}: this machine has {torch.cuda.device_count()}.", "Use --device cuda.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise CaptuneError("There is no MPS device here.", "Use --device cpu.")
    return device


# CPUs that multiply in bf16, and from which width of the vision part on that was measured to be faster than fp32
# (docs/performance.md); below, conversions cost more than they save.
MULTIPLIES_BF16 = frozenset(("amx_bf16", "avx512_bf16"))
CAPTIONS_FASTER_FROM, TRAINS_FASTER_FROM = 384, 192


def choose_precision(name: str, device: torch.device, width: int, *, training: bool = False) -> torch.dtype:
    """The number type for `auto`: bf16 on cards from Ampere on, fp16 on older ones.

    On CPUs bf16 where it is faster for a vision part of this width, else fp32.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
        wide = width >= (TRAINS_FASTER_FROM if training else CAPTIONS_FASTER_FROM)
        faster = device.type == "cpu" and wide and cpu_words() & MULTIPLIES_BF16
        return torch.bfloat16 if faster else torch.float32
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 does not work on a CPU.", "Use bf16 or fp32.")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError("This card has no bf16.", "Use --precision fp16.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
