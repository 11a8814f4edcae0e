"""What must be right on a machine before a model is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from captune.core.errors import CaptuneError, first_line


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
    """A device: `memory` in bytes (0: shared with the machine), `bf16` None where it cannot be told."""

    name: str
    about: str
    memory: int = 0
    bf16: bool | None = None


def devices() -> list[DeviceInfo]:
    """The devices that torch can use here, the one that `auto` takes first."""
    import torch

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
    """Whether the CPU multiplies in bf16; None where it cannot be told."""
    words = cpu_words()
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"}) if words else None


def cpu_words() -> frozenset[str]:
    """What the CPU can do, in Linux's words; empty elsewhere."""
    flags = Path("/proc/cpuinfo")
    return frozenset(flags.read_text(encoding="utf-8", errors="replace").split() if flags.is_file() else ())
