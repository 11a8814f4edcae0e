"""The machine: memory and disks that are full, smaller batches where memory is short, versions, logins."""

import errno
import gc
import netrc
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from captune.core.errors import CaptuneError, first_line
from captune.core.text import shortened

WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


def logged_in_to_wandb() -> bool:
    """Whether Weights & Biases has a key: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL", "").partition("://")[2].rstrip("/")
    try:
        known = netrc.netrc()
    except (OSError, netrc.NetrcParseError):
        return False
    return any(host and known.authenticators(host) is not None for host in (*WANDB_HOSTS, own))


def wandb_refusal() -> str | None:
    """Why Weights & Biases does not take the key that is there; None where it does."""
    import wandb

    try:
        return None if wandb.login(verify=True, timeout=10) else "the key was not taken"
    except (wandb.errors.Error, ValueError, OSError) as error:
        return first_line(error)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors and tokenizers pass on the system's number; torch.save notices that less was written than it gave.
_DISK_FULL = (
    *(f"(os error {number})" for number in _FULL),
    *(os.strerror(number).lower() for number in _FULL),
    "inline_container",
    "pytorchstreamwriter",
    "iostream error",  # what it writes of a small file at its end
)
_CUT = re.compile(r"\d requested and \d+ written")  # numpy's words
_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


class DiskFull(CaptuneError):
    """Something could not be written for want of room."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or the largest size of a file is used up."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    text = str(error).lower()
    return any(message in text for message in _DISK_FULL) or _CUT.search(text) is not None


def disk_full(error: BaseException, path: str | os.PathLike[str]) -> DiskFull:
    """The error to show where `is_disk_full`: no room at `path`, or a file larger than may be written there."""
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return DiskFull(
            f"Cannot write {path}: the file is larger than this user or this file system may write "
            f"({free_space(path)}).",
            "Raise the limit (ulimit -f), or choose a place on another file system, and run the command again.",
        )
    return DiskFull(
        f"The disk is full: cannot write {path} ({free_space(path)}).", "Free some space and run the command again."
    )


def free_bytes(path: str | os.PathLike[str]) -> int | None:
    """Bytes that may still be written where `path` is or will be; None where that cannot be told."""
    try:
        return shutil.disk_usage(_existing(path)).free
    except OSError:
        return None


def _existing(path: str | os.PathLike[str]) -> Path:
    """The nearest folder that is there already."""
    here = Path(os.path.abspath(path))
    while not here.exists() and here != here.parent:
        here = here.parent
    return here


def free_space(path: str | os.PathLike[str]) -> str:
    """The room at `path` in words: "1.2 MB free there"."""
    free = free_bytes(path)
    if free and not _takes_files(path):
        return "it has as many files as it takes: no inode is free"
    return "free space unknown" if free is None else f"{in_bytes(free)} free there"


def _takes_files(path: str | os.PathLike[str]) -> bool:
    """Whether the file system has room for one more name; True where it does not count them."""
    if not hasattr(os, "statvfs"):
        return True
    state = os.statvfs(_existing(path))
    return state.f_files == 0 or state.f_favail > 0


def in_bytes(count: int) -> str:
    """A number of bytes as people write it."""
    unit, size = next(((unit, size) for unit, size in _UNITS if count >= size), ("bytes", 1))
    return f"{count / size:.1f} {unit}" if size > 1 else f"{count} bytes"


_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, MPS, XPU, and Linux (ENOMEM is "cannot allocate memory")
    "not enough memory",  # torch on the CPU
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",  # numpy
    "failed to allocate memory",  # onnxruntime
    "bad_alloc",
    "bad allocation",
    "alloc_failed",  # cuBLAS, cuDNN, cuSOLVER: CUBLAS_STATUS_ALLOC_FAILED
    "cudnn_status_internal_error_host_allocation_failed",
    "could not create a memory object",  # oneDNN, which torch and OpenVINO use on CPUs
    "could not create a primitive",
    "failed to map segment from shared object",  # a library that is loaded
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is for want of memory: of a card or of the machine."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, (MemoryError, OutOfMemory)) or any(message in text for message in _OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


class OutOfMemory(CaptuneError):
    """A card or the machine has no more memory."""


def memory_error(error: BaseException, what: str, hint: str) -> OutOfMemory:
    """The error to show for `error`: `what` has no room, and `hint` names settings that need less."""
    return OutOfMemory(f"There is not memory enough {what}: {first_line(error).strip().removesuffix('.')}.", hint)


LESS_MEMORY = (
    "Free some, or use less at once: a smaller --batch-size or --eval-batch-size, fewer --num-beams, "
    "--precision bf16, fewer --image-tokens, a smaller model."
)


def machine_error(error: BaseException) -> CaptuneError | None:
    """The error to show instead of one that the system, or a library for it, has raised; None where that is a bug."""
    if is_out_of_memory(error):
        shown: CaptuneError = memory_error(error, "for this", LESS_MEMORY)
    elif is_disk_full(error):
        name = getattr(error, "filename", None)
        if name:
            shown = disk_full(error, str(name))
        else:
            shown = DiskFull(f"The disk is full ({error}).", "Free some space and run the command again.")
    elif isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        name = shortened(str(error.filename))
        shown = CaptuneError(f"{name}: {error.strerror}.", "Check that path, its permissions and the disk it is on.")
    else:
        return None
    shown.__cause__ = error
    return shown


Result = TypeVar("Result")
# When so many items in a row do not fit alone, the items are not the cause.
_MAX_REFUSALS = 8


class Halving:
    """Runs batches whose items do not depend on each other; `hint` says what to do where not even one fits."""

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._batch_size = sys.maxsize
        self._refusals = 0

    def results(self, count: int, run: Callable[[int, int], Sequence[Result]]) -> list[Result | None]:
        """Results of `run(start, end)` for `count` items, in order; None for one that does not fit alone.

        Raises `OutOfMemory` where several in a row do not fit.
        """
        results: list[Result | None] = []
        while len(results) < count:
            end = min(len(results) + self._batch_size, count)
            part = _attempt(run, len(results), end)
            if part is not None:
                self._refusals = 0
                results += part
            elif end - len(results) > 1:
                self._batch_size = (end - len(results)) // 2
            else:
                self._refusals += 1
                if self._refusals == _MAX_REFUSALS:
                    raise OutOfMemory(
                        f"There is not memory enough for one image at a time ({_MAX_REFUSALS} were tried).", self._hint
                    )
                results.append(None)
        return results


def _attempt(run: Callable[[int, int], Sequence[Result]], start: int, end: int) -> Sequence[Result] | None:
    try:
        return run(start, end)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Here, after the `except`, nothing refers to what the attempt had allocated.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return None


@contextmanager
def gc_paused() -> Iterator[None]:
    """Without the garbage collector, which finds nothing in what torch and transformers import.

    Looking for it again and again is a sixth of the time until the first caption (0.5 s of 3.2 s on one core).
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


PACKAGES = (
    "captune", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "onnxruntime", "openvino", "pillow",
    "numpy",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Python, the platform, and every package that shapes a result."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
