"""Whether an error says that memory is short, whoever raised it."""

from __future__ import annotations

from captune.core.errors import CaptuneError, first_line

_WORDS = (
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
        said = str(error).lower()
        if isinstance(error, (MemoryError, OutOfMemory)) or any(words in said for words in _WORDS):
            return True
        error = error.__cause__
    return False


class OutOfMemory(CaptuneError):
    """A card or the machine has no more memory."""


def memory_error(error: BaseException, what: str, hint: str) -> OutOfMemory:
    """The error to show for `error`: `what` has no room, and `hint` names settings that need less."""
    return OutOfMemory(f"There is not memory enough {what}: {first_line(error).strip().removesuffix('.')}.", hint)
