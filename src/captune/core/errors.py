"""What a user can cause: one exception with the next step, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

from captune.core.suggestions import did_you_mean as did_you_mean

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_SOME_IMAGES_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
# What `captune[torch]` brings; exports, scores and reports do without.
OF_TORCH = frozenset(("torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "tensorboard"))


class CaptuneError(Exception):
    """Something a user can cause and mend.

    `message` says what is wrong and where, `hint` what to do next; `code` is the
    exit code of the command line (see `captune.core.errors.EXIT_*`).
    """

    def __init__(self, message: str, hint: str = "", *, code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(CaptuneError):
    """A command, an option or a value that does not exist."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, code=EXIT_USAGE)


class MetricUnavailable(CaptuneError):
    """A metric cannot run on this machine; the others can."""


def first_line(error: BaseException, *, with_type: bool = False) -> str:
    """The first line of an error's message, after its type `with_type`; the type alone where there is no message."""
    kind = type(error).__name__
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{kind}: {line}" if line and with_type else line or kind


def missing_extra(package: str, extra: str, purpose: str) -> CaptuneError:
    """The error for an optional package that is not installed."""
    return CaptuneError(
        f"{purpose} needs the package '{package}', which is not installed.",
        f"Install it with: pip install 'captune[{extra}]'",
    )


@contextmanager
def needing_torch() -> Iterator[None]:
    """Around what runs, loads or teaches models: where torch is not installed, say how to install it."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in OF_TORCH:
            raise _without_torch(package) from None
        raise


def check_torch() -> None:
    """The same before long work that needs it later; imports nothing."""
    if find_spec("torch") is None:
        raise _without_torch("torch")


def _without_torch(package: str) -> CaptuneError:
    return CaptuneError(
        f"This needs torch, which is not installed here (there is no package '{package}').",
        "Install it with: pip install 'captune[torch]'  (an export, captune export MODEL, captions without it).",
    )


ImageErrorKind = Literal[
    "missing",  # there is no such file
    "folder",  # a folder, a pipe, a device
    "permission",  # it may not be read
    "empty",  # no bytes
    "pointer",  # a Git LFS, git-xet or git-annex pointer
    "page",  # HTML or another text saved under an image's name
    "unsupported",  # an image of a kind that is not decoded (SVG, EPS, …), or not without an extra (HEIC)
    "unknown",  # not an image
    "giant",  # more pixels than allowed
    "truncated",  # the file ends too early
    "damaged",  # anything else that a decoder refuses
    "memory",  # decoding needs more memory than there is
]


class ImageError(CaptuneError):
    """An image that cannot be used: `path`, `reason` (a few words) and `kind`."""

    def __init__(self, path: str, reason: str = "", hint: str = "", *, kind: ImageErrorKind = "damaged") -> None:
        super().__init__(f"{path}: {reason}" if reason else path, hint)
        self.path = path
        self.reason = reason
        self.kind: ImageErrorKind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason, self.hint), {"kind": self.kind}
