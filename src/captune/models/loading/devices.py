"""Which device and number type a model runs in, and what the machine needs for it."""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from captune.core.errors import CaptuneError, UsageError, first_line
from captune.core.machine import in_bytes


def choose_device(name: str = "auto") -> torch.device:
    """The device for `auto` (CUDA, then MPS, then CPU), or the named one if it is there; for `all` the first card."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device("cuda:0" if name == "all" else name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CaptuneError(
            "There is no CUDA device here.", "Use --device cpu, or check the driver with `captune doctor`."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CaptuneError(f"There is no {name}: this machine has {torch.cuda.device_count()}.", "Use --device cuda.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise CaptuneError("There is no MPS device here.", "Use --device cpu.")
    return device


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now; MPS shares the machine's."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    import psutil

    return int(psutil.virtual_memory().available)


def check_memory(name: str, values: int, dtype: torch.dtype, device: torch.device, *, spread: bool = False) -> None:
    """Raise `CaptuneError` where so many weights of a type have no room on a device (`spread`: on all cards), before
    any is read.

    A CPU may write to its swap what it does not need at once.
    """
    if spread:
        free = sum(free_memory(torch.device("cuda", number)) for number in range(torch.cuda.device_count()))
    else:
        free = free_memory(device)
    if device.type != "cuda":
        import psutil

        free += int(psutil.swap_memory().free)
    needed = values * dtype.itemsize
    if needed <= free:
        return
    smaller = "--precision bf16 (half of it), " if dtype.itemsize > 2 else ""
    raise CaptuneError(
        f"The weights of {name} take {in_bytes(needed)} of memory in {str(dtype).removeprefix('torch.')}, and "
        f"{in_bytes(free)} are free on {device.type}.",
        f"Free some, or use {smaller}on an NVIDIA card --quantize 4bit (an eighth of fp32), or a smaller model.",
    )


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
        faster = device.type == "cpu" and wide and cpu_flags() & MULTIPLIES_BF16
        return torch.bfloat16 if faster else torch.float32
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 does not work on a CPU.", "Use bf16 or fp32.")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError("This card has no bf16.", "Use --precision fp16.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def torchvision_fault() -> str | None:
    """Why an installed torchvision does not import, or None (also where there is none).

    captune does not use torchvision, but `transformers` imports it where it is installed,
    and a build that does not fit torch breaks that.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        return first_line(error)
    return None


def check_torchvision() -> None:
    """Stop with the command that mends a torchvision which does not fit torch."""
    fault = torchvision_fault()
    if fault:
        raise CaptuneError(
            f"The installed torchvision does not fit the installed torch ({fault}), and breaks transformers.",
            "captune does not need it: pip uninstall torchvision",
        )


@dataclass(frozen=True)
class DeviceInfo:
    """A device: `memory` in bytes (0: shared with the machine), `bf16` None where it is unknown."""

    name: str
    about: str
    memory: int = 0
    bf16: bool | None = None


def devices() -> list[DeviceInfo]:
    """The devices that torch can use here, the one that `auto` takes first."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        # bf16 runs on cards from Ampere (compute capability 8) on.
        found.append(DeviceInfo(f"cuda:{index}", card.name, card.total_memory, card.major >= 8))
    if torch.backends.mps.is_available():
        found.append(DeviceInfo("mps", "Apple GPU", 0, None))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    about = f"{cores} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    found.append(DeviceInfo("cpu", about, 0, _cpu_bf16()))
    return found


def _cpu_bf16() -> bool | None:
    """Whether the CPU multiplies in bf16; None where it is unknown."""
    flags = cpu_flags()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}) if flags else None


def cpu_flags() -> frozenset[str]:
    """The CPU's features by Linux's names; empty on other systems."""
    info = Path("/proc/cpuinfo")
    return frozenset(info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else ())
