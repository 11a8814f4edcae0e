"""Which device and number type a model runs in."""

from __future__ import annotations

import torch

from captune.core.errors import CaptuneError, UsageError


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


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number type for `auto`: bf16 on cards from Ampere on, fp16 on older ones, else fp32."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
        return torch.float32
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 does not work on a CPU.", "Use bf16 or fp32.")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError("This card has no bf16.", "Use --precision fp16.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
