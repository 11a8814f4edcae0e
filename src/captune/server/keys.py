"""API keys with names, and limits on requests and wrong keys."""

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from captune.core.errors import CaptuneError, UsageError

VARIABLE = "CAPTUNE_API_KEYS"
_MAX_NAMES = 10_000


def read_keys(environment: Mapping[str, str], file: str | None) -> dict[str, str]:
    """Keys by name, of CAPTUNE_API_KEYS (`name=key,name=key`) and a file (one on each line, # for notes)."""
    keys: dict[str, str] = {}
    _add(keys, environment.get(VARIABLE, "").split(","), VARIABLE)
    if file is not None:
        try:
            lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise CaptuneError(f"The keys in {file} cannot be read: {error}.", "Check --keys-file.") from None
        _add(keys, (line for line in lines if not line.lstrip().startswith("#")), file)
        if not keys:
            raise UsageError(f"There is no key in {file}.", "A line of it: phone=some-long-random-text")
    return keys


def _add(keys: dict[str, str], pairs: Iterable[str], where: str) -> None:
    for number, pair in enumerate(pairs, start=1):
        name, equals, key = (part.strip() for part in pair.partition("="))
        if not pair.strip():
            continue
        if not equals or not name or not key:  # what stands there may be a key: it is not shown
            raise UsageError(f"{where}: key {number} has no name.", "Write name=key, such as phone=some-long-text.")
        if name in keys:
            raise UsageError(f"{where}: two keys are named {name}.", "Give each its own name.")
        keys[name] = key


class Keys:
    """The names of keys; without any, requests need none."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests = {name: _digest(key) for name, key in keys.items()}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, authorization: str) -> str | None:
        """The name of the key in an `Authorization` header; every key is compared, in constant time."""
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip())
        match = None
        for name, known in self._digests.items():
            if hmac.compare_digest(known, digest):
                match = name
        return match if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class RateLimit:
    """A token bucket for each name that fills by `per_minute` and holds a quarter of that, one at least.

    The latest names are remembered, so that clients cannot fill the memory.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_minute / 60, max(1.0, per_minute / 4), clock
        self._tokens: dict[str, tuple[float, float]] = {}

    def retry_after(self, name: str, *, take: bool = True) -> int:
        """Take a token, or only check; 0, or the whole seconds until there is one again."""
        if not self._per_second:
            return 0
        now = self._clock()
        left, since = self._tokens.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        empty = left < 1
        self._tokens[name] = (left - (take and not empty), now)
        if len(self._tokens) > _MAX_NAMES:
            del self._tokens[next(iter(self._tokens))]
        return max(1, math.ceil((1 - left) / self._per_second)) if empty else 0


class WrongKeyLimit:
    """Wrong keys are slowed: ten at once and 40 a minute of a client, 300 and 1200 a minute of all.

    Above that no key is checked, right or wrong, so that an answer reveals nothing. A client that sent a right one
    before is still served, whoever guesses behind the same address.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_client, self._of_all = RateLimit(40, clock), RateLimit(1200, clock)
        self._known: dict[tuple[str, str], None] = {}

    def retry_after(self, client: str, name: str | None) -> int:
        """Count a key, of some name (None: a wrong key); 0, or the seconds until keys are checked again."""
        if name is not None and (client, name) in self._known:
            return 0
        wrong = name is None
        seconds = self._of_client.retry_after(client, take=False) or self._of_all.retry_after("", take=wrong)
        if seconds:
            return seconds
        self._of_client.retry_after(client, take=wrong)
        if name is not None:
            self._known[client, name] = None
            if len(self._known) > _MAX_NAMES:
                del self._known[next(iter(self._known))]
        return 0
