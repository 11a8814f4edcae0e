"""Errors that a user can cause and mend: one exception with the next step, exit codes, suggestions."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

from captune.core.aliases import ALIASES, ANSWERS, FORMER, VERBS_ELSEWHERE, canonical, plain
from captune.core.environment import OF_COMPOSE, OWN, VARIABLES

# More names than this are a wall of text: only the nearest are shown then.
LISTED = 30
# A suggestion has at least this similarity; those as near as the best within MARGIN stand beside it.
LEAST, MARGIN, MOST = 0.6, 0.08, 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'Did you mean …? Known: …' for an unknown name."""
    names = sorted(known)
    near = nearest(name, names)
    listed = f"Known: {', '.join(names) if names else 'none'}."
    if not near:
        return listed
    return question(near) if len(names) > LISTED else f"{question(near)} {listed}"


def question(names: Iterable[str]) -> str:
    """'Did you mean 'a' or 'b'?'"""
    return "Did you mean " + " or ".join(f"'{one}'" for one in names) + "?"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The names that look most like `name`, the nearest first: slips of the keyboard, parts and beginnings of names."""
    scored = sorted(((similarity(name, one), one) for one in known), key=lambda pair: (-pair[0], pair[1]))
    return [one for score, one in scored[:MOST] if score >= LEAST and score >= scored[0][0] - MARGIN]


def similarity(given: str, name: str) -> float:
    """How likely `name` was meant by `given`, 0–1; case and the kind of dash do not count."""
    a, b = plain(given), plain(name)
    if a.replace("_", "") == b.replace("_", ""):
        return 1.0
    words_a, words_b = set(a.split("_")), set(b.split("_"))
    part = 0.0
    if min(len(a), len(b)) >= 3 and (a.startswith(b) or b.startswith(a)):
        part = 0.75
    if words_a and words_b and (words_a < words_b or words_b < words_a) and max(map(len, words_a & words_b)) >= 3:
        part = max(part, 0.7)
    longest = max(len(a), len(b))
    changes = edits(a, b)
    # One slip in a short name, one more for every four letters: `lr` is not `lora`.
    near = 1 - changes / longest if changes <= max(1, longest // 4) or changes / longest <= 0.34 else 0.0
    return max(near if longest > 2 else 0.0, part + 0.2 * min(len(a), len(b)) / longest if part else 0.0)


def edits(a: str, b: str) -> int:
    """Letters added, left out, changed or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[j] = min(row[j], earlier[j - 2] + 1)
    return row[-1]


def about_option(name: str, known: Iterable[str], *, verb: str = "") -> str:
    """What to do about an option that is not among `known`: captune's way, its name here, other verbs, the nearest.

    `known` are names or flags, and suggested as they are.
    """
    given, shown = plain(name), {plain(one): one for one in known}
    answer = ANSWERS.get(given) or ANSWERS.get(given.removeprefix("no_"))
    if answer:
        return answer
    here = ALIASES.get(given, ())
    texts = []
    elsewhere = _takers(here or (given,), besides=verb)
    if elsewhere:
        option, verbs = elsewhere
        called = f"--{option.replace('_', '-')}"
        texts.append(f"{called} is an option of {', '.join(f'captune {one}' for one in verbs)}.")
    elif here:
        texts.append(f"captune calls it '{here[0]}'.")
    # A slip in another tool's name is a slip in captune's.
    others = {other: own for other in ALIASES if (own := canonical(other, shown)) and other not in shown}
    near = dict.fromkeys(shown[others.get(one, one)] for one in nearest(given, [*shown, *others]))
    if near and not here:
        texts.append(question(near))
    listed = did_you_mean(given, shown.values()) if len(shown) <= LISTED else "The command's --help lists its options."
    return " ".join(texts) or listed


def about_verb(name: str, verbs: Iterable[str]) -> str:
    """What to do about a verb that does not exist: captune's name for it, or the nearest."""
    verbs = list(verbs)
    here = VERBS_ELSEWHERE.get(plain(name))
    return f"captune calls it '{here}'." if here in verbs else did_you_mean(name, verbs)


def about_variables(environment: Mapping[str, str]) -> list[str]:
    """What is wrong with variables that look like one of captune's and are none: nothing would come of them."""
    known = {one.name for one in VARIABLES} | set(OF_COMPOSE)
    strange = [name for name, value in environment.items() if name.startswith(OWN) and value and name not in known]
    if not strange:
        return []
    from captune.core.config import leaves
    from captune.core.options.verbs import configs

    options = {name for config in configs().values() for name in (*leaves(config), *FORMER)}
    known |= {f"{OWN}{name.upper()}" for name in options}
    stems = {name.removeprefix(OWN).lower() for name in known if name.startswith(OWN)}
    found = []
    for name in sorted(set(strange) - known):
        own = canonical(name.removeprefix(OWN), options)
        near = [own] if own else nearest(name.removeprefix(OWN), stems)
        if near:  # others are somebody's own
            meant = question(f"{OWN}{one.upper()}" for one in near)
            found.append(f"The environment variable {name} is not read. {meant}")
    return found


def _takers(options: Iterable[str], besides: str) -> tuple[str, list[str]] | None:
    """The first of the options that some verb takes, with those verbs."""
    from captune.core.config import leaves
    from captune.core.options.verbs import configs

    for option in options:
        verbs = [verb for verb, config in configs().items() if verb != besides and option in leaves(config)]
        if verbs:
            return option, verbs
    return None


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
